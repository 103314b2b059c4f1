"""Exports BERT-family encoders to packed ONNX graphs (see :mod:`bertd.bundle`)."""
