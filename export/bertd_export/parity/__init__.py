"""Whether a graph answers as PyTorch eager does, alone and in batches.

::

    cases ──reference────> PyTorch, text by text ──┬─comparison──> largest difference, equal bits
      └─────packed_batch─> ONNX Runtime, batches ──┴─agreement───> a cosine for each text
"""
