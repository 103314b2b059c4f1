"""Bundle in, answers out: the engine, the scheduler and the gRPC server. Never imports torch."""
