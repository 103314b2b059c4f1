"""tei.v1.Info: what is served."""

from __future__ import annotations

from typing import Any

import bertd
from bertd.bundle import Precision, Task
from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.models.model import Model
from bertd_server.rpc.tei.service import TeiService, answered, holding
from bertd_server.tasks.ask import require

MODEL_TYPES: dict[Task, pb.ModelType.ValueType] = {
    "feature-extraction": pb.MODEL_TYPE_EMBEDDING,
    "fill-mask": pb.MODEL_TYPE_EMBEDDING,
    "text-classification": pb.MODEL_TYPE_CLASSIFIER,
    "zero-shot-classification": pb.MODEL_TYPE_CLASSIFIER,
    "text-ranking": pb.MODEL_TYPE_RERANKER,
}
_DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


class InfoService(TeiService, tei_pb2_grpc.InfoServicer):
    """Describes the server and its model."""

    async def Info(  # noqa: N802 - the RPC's name
        self, request: pb.InfoRequest, context: Context[pb.InfoRequest, pb.InfoResponse]
    ) -> pb.InfoResponse:
        """Describe them."""
        return await answered(self._info, request, context)

    @holding
    async def _info(
        self,
        model: Model,
        request: pb.InfoRequest,  # noqa: ARG002 - it has no fields
        context: Context[Any, Any],  # noqa: ARG002 - as the rest
    ) -> pb.InfoResponse:
        require(model, "Info", *MODEL_TYPES)  # the protocol has no word for other tasks
        manifest, limits = model.manifest, model.limits
        return pb.InfoResponse(
            version=bertd.__version__,
            model_id=model.name,
            model_sha=manifest.source.revision,
            model_dtype=_DTYPES[manifest.precision],
            model_type=MODEL_TYPES[manifest.task],
            max_concurrent_requests=max(1, limits.max_queue_tokens // manifest.max_tokens),
            max_input_length=manifest.max_tokens,
            max_batch_tokens=limits.max_batch_tokens,
            max_batch_requests=limits.max_batch_sequences,
            max_client_batch_size=self._limits.max_texts,
            tokenization_workers=1,
        )
