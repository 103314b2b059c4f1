"""Bundle in, answers out: the engine, the scheduler and the gRPC server. Never imports torch."""

from bertd import telemetry

telemetry.refuse()  # before any module here imports ONNX Runtime
