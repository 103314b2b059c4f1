"""From the packed fp32 graph to an int8 or fp16 one that is good enough, or a refusal.

::

    calibration   texts that set scales, and texts that judge
    int8:  linear_layers ──folding──> activations, gptq ──rounding──> int8_graph ──> cosine to fp32
    fp16:  largest value of each node ──fp16_exceptions──> fp16_graph ──> cosine to fp32
    conversion    what either hands to the bundle: graph, record, tolerances
"""
