"""A score card of a machine: cores, memory, products of matrices, and what an engine makes of them.

::

    cores ─ bandwidth ─ products ──> roofline ──┐
    bundles ──> wide runs ──> efficiency ───────┼──> Card ──> JSON, tables, `bertd bench diff`
            └─> lanes x threads x texts ──> rates, cost
"""
