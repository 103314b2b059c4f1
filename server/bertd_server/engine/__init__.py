"""A bundle on ONNX Runtime: token sequences in, arrays out.

::

    engine      narrow runs for lanes, a wide one for a batch alone; the same bits from both
      packing     sequences laid end to end, and answers back in order
      sessions    ONNX Runtime's options; one arena
      prepacking  weights prepared once, mapped by every session and server
      native      whether kernels of bertd-native take the place of the graph's functions
      providers   names of what computes, and a clear word where it is not there
"""
