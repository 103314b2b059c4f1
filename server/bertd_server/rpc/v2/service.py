"""GRPCInferenceService: each call to what answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import bertd
from bertd.oip import grpc_service_pb2 as pb
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.models.repository import Repository
from bertd_server.rpc.encoding import Pieces, within
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.rpc.v2 import answers, describe, parameters, tensors
from bertd_server.rpc.v2.inputs import inputs_of
from bertd_server.rpc.v2.repository import RepositoryCalls
from bertd_server.rpc.v2.surface import Surface, surface_of
from bertd_server.scheduling.executor import Steps
from bertd_server.security.management import Management

# Triton's header: an error is the stream's status, and ends it.
_GRPC_ERROR = ("triton_grpc_error", "true")
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class OpenInferenceService(RepositoryCalls):
    """Answers tensors."""

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        models: Catalogue,
        repository: Repository,
        management: Management,
        *,
        limits: CallLimits,
        serving: Callable[[], bool],
        closing: asyncio.Event,
    ) -> None:
        """Serve models.

        Args:
            models: looked up anew for each call.
            repository: what can change them.
            management: whether calls here may.
            limits: of calls.
            serving: tells whether calls can be answered now.
            closing: once it is set, streams end with what they have sent.
        """
        super().__init__(repository, management, serving)
        self._models = models
        self._max_texts = limits.max_texts
        self._caches = limits.caches
        self._answer_bytes = limits.max_message_bytes
        self._closing = closing

    async def ServerLive(  # noqa: N802 - the RPC's name
        self,
        request: pb.ServerLiveRequest,  # noqa: ARG002 - it has no fields
        context: Context[Any, Any],  # noqa: ARG002
    ) -> pb.ServerLiveResponse:
        """Say that the server answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802 - the RPC's name
        self,
        request: pb.ServerReadyRequest,  # noqa: ARG002 - it has no fields
        context: Context[Any, Any],  # noqa: ARG002
    ) -> pb.ServerReadyResponse:
        """Say whether calls can be answered now."""
        return pb.ServerReadyResponse(ready=self._serving())

    async def ModelReady(  # noqa: N802 - the RPC's name
        self,
        request: pb.ModelReadyRequest,
        context: Context[Any, Any],  # noqa: ARG002
    ) -> pb.ModelReadyResponse:
        """Say whether a model can be asked now; no error for one that is not served."""
        try:
            self._models.find(request.name, request.version, "name")
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._serving())

    async def ServerMetadata(  # noqa: N802 - the RPC's name
        self,
        request: pb.ServerMetadataRequest,  # noqa: ARG002 - it has no fields
        context: Context[Any, Any],  # noqa: ARG002
    ) -> pb.ServerMetadataResponse:
        """Name the server."""
        return pb.ServerMetadataResponse(
            name="bertd", version=bertd.__version__, extensions=describe.EXTENSIONS
        )

    async def ModelMetadata(  # noqa: N802 - the RPC's name
        self, request: pb.ModelMetadataRequest, context: Context[Any, Any]
    ) -> pb.ModelMetadataResponse:
        """Name the tensors of a model."""
        return describe.metadata(await self._found(request, context))

    async def ModelConfig(  # noqa: N802 - the RPC's name
        self, request: pb.ModelConfigRequest, context: Context[Any, Any]
    ) -> pb.ModelConfigResponse:
        """Give the configuration of a model."""
        model = await self._found(request, context)
        config = describe.config(model, max_texts=self._max_texts, caches=self._caches)
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(  # noqa: N802 - the RPC's name
        self, request: pb.ModelStatisticsRequest, context: Context[Any, Any]
    ) -> pb.ModelStatisticsResponse:
        """Count and time what has happened."""
        if request.name:
            models: Sequence[Model] = [await self._found(request, context)]
        else:
            models = self._models.models()
        return pb.ModelStatisticsResponse(model_stats=map(describe.statistics, models))

    async def ModelInfer(  # noqa: N802 - the RPC's name
        self,
        request: pb.ModelInferRequest,
        context: Context[pb.ModelInferRequest, pb.ModelInferResponse],
    ) -> Any:
        """Answer a request, with the bytes of the response."""
        try:
            return await self._infer(request, context, stream=False)
        except answers.InputsFailed as failed:
            await abort(context, *failed.errors)
        except RequestError as error:
            await abort(context, error)

    async def ModelStreamInfer(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.ModelInferRequest],
        context: Context[pb.ModelInferRequest, pb.ModelStreamInferResponse],
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer requests, each with one response, in order."""
        ends = _GRPC_ERROR in tuple(context.invocation_metadata() or ())

        async def work(request: pb.ModelInferRequest) -> Any:
            try:
                return await self._infer(request, context, stream=True)
            except RequestError as error:
                if ends:
                    raise
                named = pb.ModelInferResponse(
                    id=request.id,
                    model_name=request.model_name,
                    model_version=request.model_version,
                )
                return pb.ModelStreamInferResponse(
                    error_message=error.message, infer_response=_final(named)
                )

        stream = in_order(request_iterator, work, self._closing)
        try:
            async with closed_after_use(stream) as responses:
                async for response in responses:
                    yield response
        except answers.InputsFailed as failed:
            await abort(context, *failed.errors)

    async def _infer(
        self, request: pb.ModelInferRequest, context: Context[Any, Any], *, stream: bool
    ) -> bytes:
        model_name, version = request.model_name, request.model_version
        with self._models.find(model_name, version, "model_name") as model:
            return await self._ask(model, request, context, stream=stream)

    async def _ask(
        self,
        model: Model,
        request: pb.ModelInferRequest,
        context: Context[Any, Any],
        *,
        stream: bool,
    ) -> bytes:
        surface = surface_of(model.manifest)
        wanted = _wanted(request, surface)
        options = parameters.options(request.parameters, surface.parameters, stream=stream)
        caller = parameters.caller(options, context.time_remaining(), self._answer_bytes)
        found = tensors.read(request, surface.takes, self._max_texts)
        asked = answers.Asked(
            model,
            await inputs_of(model, found, options, self._max_texts),
            options,
            caller,
            frozenset(wanted),
        )
        outputs = await answers.answer(asked)
        response = pb.ModelInferResponse(
            model_name=model.name, model_version=model.version, id=request.id
        )
        chosen = [outputs.pop(name) for name in wanted]
        pieces = tensors.write(chosen, response, raw=tensors.is_raw(request))
        made = _streamed(pieces, response) if stream else _joined(pieces)
        return await model.jobs.run(made, caller.deadline)

    async def _found(self, request: Any, context: Context[Any, Any]) -> Model:
        try:
            return self._models.find(request.name, request.version, "name")
        except RequestError as error:
            await abort(context, error)


def _wanted(request: pb.ModelInferRequest, surface: Surface) -> list[str]:
    """The outputs that a request is to have, in order."""
    wanted: list[str] = []
    for number, output in enumerate(request.outputs):
        field = f"outputs[{number}]"
        if output.name not in surface.gives:
            raise InvalidInput(
                f"{field} is {output.name!r}, which the model does not give; it gives "
                f"{', '.join(surface.gives)}",
                field=field,
            )
        if output.name in wanted:
            raise InvalidInput(
                f"{field} is {output.name}, which is there already: ask for it once", field=field
            )
        for name in parameters.for_model(output.parameters, field):
            raise InvalidInput(
                f"{field} has the parameter {name!r}: "
                + (
                    "ask for label and score, with the parameter top_k of the request"
                    if name == "classification"
                    else "outputs are sent in the response, leave it out"
                ),
                field=field,
            )
        wanted.append(output.name)
    return wanted or list(surface.outputs)


def _joined(writing: Steps[Pieces]) -> Steps[bytes]:
    """A response in bytes."""
    return b"".join((yield from writing))


def _streamed(writing: Steps[Pieces], response: pb.ModelInferResponse) -> Steps[bytes]:
    """The same as a stream's, and the only one of its request."""
    _final(response)
    pieces = yield from writing
    return b"".join(within(pb.ModelStreamInferResponse, "infer_response", pieces))


def _final(response: pb.ModelInferResponse) -> pb.ModelInferResponse:
    """A response that says that it is the only one of its request."""
    response.parameters["triton_final_response"].bool_param = True
    return response
