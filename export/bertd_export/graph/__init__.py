"""From a stock PyTorch model to the packed ONNX graph: trace, rewrites, functions."""
