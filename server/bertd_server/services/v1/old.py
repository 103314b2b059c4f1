"""bertd.v1: messages to plain values, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bertd import bundle
from bertd.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput, RequestError, UnknownModel
from bertd_server.model import EmbeddedText, Model
from bertd_server.scheduler import BULK, INTERACTIVE
from bertd_server.services.status import abort, to_status

Models = Mapping[str, Model]

_PRIORITIES = {
    inference_pb2.PRIORITY_UNSPECIFIED: INTERACTIVE,
    inference_pb2.PRIORITY_INTERACTIVE: INTERACTIVE,
    inference_pb2.PRIORITY_BULK: BULK,
}


def find_model(models: Models, name: str) -> Model:
    """The model of that name; an empty name is the only one.

    Raises:
        UnknownModel: it is not served.
        InvalidInput: no name was given and there are several.
    """
    served = ", ".join(sorted(models))
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if not name:
        raise InvalidInput(f"model is empty: name one of {served}", field="model")
    try:
        return models[name]
    except KeyError:
        raise UnknownModel(f"model {name!r} is not served; served: {served}") from None


class InferenceService(inference_pb2_grpc.InferenceServiceServicer):
    """Answers texts."""

    def __init__(self, models: Models, *, max_texts: int) -> None:
        self._models = models
        self._max_texts = max_texts

    async def Embed(  # noqa: N802 - the RPC's name
        self,
        request: inference_pb2.EmbedRequest,
        context: Context[inference_pb2.EmbedRequest, inference_pb2.EmbedResponse],
    ) -> inference_pb2.EmbedResponse:
        """Embed the texts of a call."""
        try:
            model = find_model(self._models, request.model)
            self._check(request)
            remaining: float | None = context.time_remaining()
            results = await model.embed(
                request.texts,
                prompt_name=request.prompt_name if request.HasField("prompt_name") else None,
                truncate=request.long_text == inference_pb2.LONG_TEXT_POLICY_TRUNCATE,
                within=math.inf if remaining is None else remaining,
                priority=_PRIORITIES[request.priority],
            )
        except RequestError as error:
            await abort(context, error)
        errors = [r.outcome for r in results if isinstance(r.outcome, RequestError)]
        if len(errors) == len(results):
            await abort(context, *errors)
        return inference_pb2.EmbedResponse(
            model=model.manifest.name,
            model_version=model.version,
            dimensions=model.manifest.dimensions,
            results=map(_result, results),
        )

    def _check(self, request: inference_pb2.EmbedRequest) -> None:
        if not request.texts:
            raise InvalidInput("texts is empty: send at least one text", field="texts")
        if len(request.texts) > self._max_texts:
            raise InvalidInput(
                f"texts has {len(request.texts)} entries, a call takes at most {self._max_texts}: "
                "split it into several calls",
                field="texts",
            )
        if request.long_text not in inference_pb2.LongTextPolicy.values():
            raise InvalidInput(
                f"long_text {request.long_text} is not a policy: "
                f"use one of {', '.join(inference_pb2.LongTextPolicy.keys())}",
                field="long_text",
            )
        if request.priority not in _PRIORITIES:
            raise InvalidInput(
                f"priority {request.priority} is no class of calls: "
                f"use one of {', '.join(inference_pb2.Priority.keys())}",
                field="priority",
            )


def _result(text: EmbeddedText) -> inference_pb2.EmbedResult:
    tokens = inference_pb2.TokenUsage(
        total=text.total_tokens,
        read=text.read_tokens,
        truncated=text.total_tokens - text.read_tokens if text.read_tokens else 0,
    )
    answer = text.outcome
    if isinstance(answer, RequestError):
        return inference_pb2.EmbedResult(error=to_status(answer), tokens=tokens)
    return inference_pb2.EmbedResult(
        embedding=answer.outputs[bundle.SENTENCE_EMBEDDING].astype("<f4", copy=False).tobytes(),
        tokens=tokens,
        timings=inference_pb2.Timings(
            tokenize_ns=text.tokenize_ns,
            queue_ns=answer.queue_ns,
            compute_ns=answer.compute_ns,
            total_ns=text.total_ns,
        ),
        batch=inference_pb2.BatchInfo(sequences=answer.batch_sequences, tokens=answer.batch_tokens),
    )


class ModelService(models_pb2_grpc.ModelServiceServicer):
    """Describes the models."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ListModels(  # noqa: N802 - the RPC's name
        self,
        request: models_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: Context[models_pb2.ListModelsRequest, models_pb2.ListModelsResponse],  # noqa: ARG002
    ) -> models_pb2.ListModelsResponse:
        """List the models by name."""
        return models_pb2.ListModelsResponse(
            models=[_describe(model) for _, model in sorted(self._models.items())]
        )

    async def GetModel(  # noqa: N802 - the RPC's name
        self,
        request: models_pb2.GetModelRequest,
        context: Context[models_pb2.GetModelRequest, models_pb2.GetModelResponse],
    ) -> models_pb2.GetModelResponse:
        """Describe one model."""
        try:
            return models_pb2.GetModelResponse(
                model=_describe(find_model(self._models, request.name))
            )
        except RequestError as error:
            await abort(context, error)


def _describe(model: Model) -> models_pb2.Model:
    manifest = model.manifest
    return models_pb2.Model(
        name=manifest.name,
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
    )
