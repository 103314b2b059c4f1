"""A bundle on ONNX Runtime: packing, sessions, providers, prepacked weights."""
