"""From a stock PyTorch model to the packed ONNX graph, and back from the file into a session.

::

    Checkpoint ──packed_model──> the stock forward on one row of tokens ──trace──> graph
      traced_operators attention and reductions by sequence, one operator each
      hidden_state     hands a head only the rows that it reads
      position_bias    the attention modules of MPNet and DeBERTa
    graph ──first_rows, rotary, rewrite──> fewer and larger operators
          ──operators──> with its functions: attention, local_attention, biased_attention
          ──saving──> files ──runtime──> session, optimised graph ──fusion──> fused everywhere?
"""
