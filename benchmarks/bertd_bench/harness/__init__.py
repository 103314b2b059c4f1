"""How anything here is measured: rounds, warm-up, intervals, budgets, noise, the machine.

The harness knows nothing of a model (:mod:`bertd_bench.harness.system`).
"""
