"""Comparisons of bertd with PyTorch eager, on the machine at hand."""

from bertd import telemetry

telemetry.refuse()  # before any module here imports ONNX Runtime
