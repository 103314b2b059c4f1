"""The RPCs of the service that bertd has nothing behind: each says so, and what to do instead."""

from __future__ import annotations

from typing import Any

from bertd.oip import grpc_service_pb2_grpc

from bertd_server.errors import Unsupported
from bertd_server.rpc.status import abort


def _refusal(why: str) -> Any:
    """A method that refuses."""

    async def refuse(_service: object, _request: object, context: Any) -> None:
        await abort(context, Unsupported(why))

    return refuse


_MEMORY = "the server reads no shared memory: send tensors in requests, raw or typed"
_TRACE = "the server has no trace settings: ModelStatistics counts and times each stage"
_LOGS = "log settings cannot be changed while the server runs: start it with others"


class RefusedCalls(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with UNIMPLEMENTED."""

    SystemSharedMemoryStatus: Any = _refusal(_MEMORY)
    SystemSharedMemoryRegister: Any = _refusal(_MEMORY)
    SystemSharedMemoryUnregister: Any = _refusal(_MEMORY)
    CudaSharedMemoryStatus: Any = _refusal(_MEMORY)
    CudaSharedMemoryRegister: Any = _refusal(_MEMORY)
    CudaSharedMemoryUnregister: Any = _refusal(_MEMORY)
    TraceSetting: Any = _refusal(_TRACE)
    LogSettings: Any = _refusal(_LOGS)
