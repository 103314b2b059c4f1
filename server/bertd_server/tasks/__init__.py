"""What models do with texts: one module for each task, plain values in and out.

::

    inputs ──Reader──> windows ──scheduler──> outputs of the graph ──task──> value
       └── refused: an error of its own, and the others go on ──────────────────^

Services translate; nothing here knows a protocol.
"""
