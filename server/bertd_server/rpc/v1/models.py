"""The model service of bertd.v1: what is served."""

from __future__ import annotations

from bertd import bundle
from bertd.v1 import models_pb2, models_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import RequestError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.status import abort


class ModelService(models_pb2_grpc.ModelServiceServicer):
    """Describes the models."""

    def __init__(self, models: Catalogue) -> None:
        self._models = models

    async def ListModels(  # noqa: N802 - the RPC's name
        self,
        request: models_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: Context[models_pb2.ListModelsRequest, models_pb2.ListModelsResponse],  # noqa: ARG002
    ) -> models_pb2.ListModelsResponse:
        """List the models by name."""
        return models_pb2.ListModelsResponse(models=list(map(_describe, self._models.models())))

    async def GetModel(  # noqa: N802 - the RPC's name
        self,
        request: models_pb2.GetModelRequest,
        context: Context[models_pb2.GetModelRequest, models_pb2.GetModelResponse],
    ) -> models_pb2.GetModelResponse:
        """Describe one model."""
        try:
            return models_pb2.GetModelResponse(
                model=_describe(self._models.find(request.name, field="name"))
            )
        except RequestError as error:
            await abort(context, error)


def _describe(model: Model) -> models_pb2.Model:
    manifest = model.manifest
    return models_pb2.Model(
        name=model.name,
        version=model.version,
        task=manifest.task,
        architecture=manifest.architecture,
        precision=manifest.precision,
        dimensions=manifest.dimensions,
        max_tokens=manifest.max_tokens,
        pooling=manifest.pooling,
        normalized=manifest.normalized,
        prompts=manifest.prompts,
        default_prompt_name=manifest.default_prompt_name or "",
        graph_sha256=manifest.files[bundle.GRAPH_NAME].sha256,
        labels=manifest.labels,
        vocab_size=manifest.vocab_size,
        mask_token=model.mask_token,
    )
