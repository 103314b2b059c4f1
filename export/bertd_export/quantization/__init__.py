"""From the packed fp32 graph to an int8 or fp16 one that is good enough, or a refusal.

::

    calibration   texts that set scales, and texts that judge
    int8          linear_layers ──folding──> activations, gptq ──rounding──> rounded layers
                  ──int8_exceptions──> int8_graph ──> int8_functions ──> cosine to fp32
    fp16          largest values ──fp16_exceptions──> fp16_graph ──> cosine to fp32
    conversion    what either is held against, and hands to the bundle
"""
