"""Exports BERT-family encoders to packed ONNX graphs (see :mod:`bertd.bundle`)."""

from bertd import telemetry

telemetry.refuse()  # before any module here imports ONNX Runtime
