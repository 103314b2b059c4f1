"""The Open Inference Protocol over HTTP: tensors in JSON, or in bytes behind it.

::

    JSON [+ bytes] ──> ModelInferRequest, raw ──rpc.v2──> ModelInferResponse, raw ──> JSON [+ bytes]

https://github.com/kserve/open-inference-protocol, and Triton's extensions: binary data, statistics,
the index of the repository.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from bertd.oip import grpc_service_pb2 as pb
from pydantic import Field

from bertd_server.errors import InvalidInput
from bertd_server.http import answers
from bertd_server.http.bodies import LEAST_BYTES, check_values
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import v2_form
from bertd_server.http.fields import Anything, Body, shown
from bertd_server.http.front import Route
from bertd_server.http.messages import schema_of, written_message
from bertd_server.http.replies import HttpReply, json_reply, written
from bertd_server.models.catalogue import Catalogue
from bertd_server.rpc.v2 import OpenInferenceService
from bertd_server.scheduling.executor import LONG, Steps

HEADER = "inference-header-content-length"
_BINARY = "application/octet-stream"
_LENGTH = struct.Struct("<I")
_STATISTICS = pb.ModelStatisticsResponse.DESCRIPTOR
_METADATA = pb.ModelMetadataResponse.DESCRIPTOR
_CONFIG: Any = pb.ModelConfigResponse.DESCRIPTOR.fields_by_name["config"].message_type
_TYPES: Mapping[str, str] = {
    "INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4",
    "UINT32": "<u4", "INT64": "<i8", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "BOOL": "?",
}  # fmt: skip


class InferTensor(Body):
    """A tensor."""

    name: str
    shape: list[int] | None = None
    datatype: str = ""
    data: Anything = None
    parameters: dict[str, Any] | None = None


class InferBody(Body):
    """Tensors for a model."""

    id: str | None = None
    inputs: list[InferTensor] = Field(description="the tensors that the model takes")
    outputs: list[InferTensor] | None = Field(None, description="those wanted; all by default")
    parameters: dict[str, Any] | None = Field(None, description="of the request: docs/v2.md")


class IndexBody(Body):
    """Which models to list."""

    ready: bool | None = Field(None, description="those alone that answer")


class TensorCalls:
    """Answers clients of the Open Inference Protocol."""

    def __init__(self, models: Catalogue, service: OpenInferenceService) -> None:
        """Have the service answer; models are looked up anew for each call."""
        self._models = models
        self._service = service

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        statistics = schema_of(_STATISTICS, numbers=True)
        config, metadata = schema_of(_CONFIG, numbers=True), schema_of(_METADATA, numbers=True)
        yield _get("/v2", self.server, "the server", answers.SERVER)
        yield _get("/v2/health/live", self.live, "that it lives", answers.LIVE, public=True)
        yield _get("/v2/health/ready", self.ready, "whether it answers", answers.READY, public=True)
        yield _get(
            "/v2/models/stats", self.statistics, "counts and times of all models", statistics
        )
        for model in ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}"):
            yield Route(
                "POST",
                f"{model}/infer",
                self.infer,
                v2_form,
                "what a model makes of tensors",
                counted=False,
                body=InferBody,
                gives=answers.INFERRED,
                binary=True,
            )
            yield _get(
                f"{model}/ready", self.model_ready, "whether a model answers", answers.MODEL_READY
            )
            yield _get(f"{model}/stats", self.statistics, "counts and times of a model", statistics)
            yield _get(f"{model}/config", self.config, "a model's configuration", config)
            yield _get(model, self.model, "the tensors of a model", metadata)
        yield Route(
            "POST",
            "/v2/repository/index",
            self.index,
            v2_form,
            "what may be served",
            scope=None,
            body=IndexBody,
            gives=answers.INDEX,
        )
        for verb, answer in (("load", self.load), ("unload", self.unload)):
            path = f"/v2/repository/models/{{model:path}}/{verb}"
            yield Route(
                "POST",
                path,
                answer,
                v2_form,
                f"{verb} a model",
                scope="manage",
                gives=answers.NOTHING,
            )

    async def server(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Name the server."""
        found = await self._service.ServerMetadata(pb.ServerMetadataRequest(), _as_context(call))
        return json_reply(
            {"name": found.name, "version": found.version, "extensions": list(found.extensions)}
        )

    async def live(self, _call: HttpCall, _body: bytes) -> HttpReply:
        """Say that the server answers."""
        return json_reply({"live": True})

    async def ready(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Say whether calls can be answered now."""
        found = await self._service.ServerReady(pb.ServerReadyRequest(), _as_context(call))
        return json_reply({"ready": found.ready}, 200 if found.ready else 503)

    async def model_ready(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Say whether a model can be asked now."""
        name, version = _named(call)
        request = pb.ModelReadyRequest(name=name, version=version)
        found = await self._service.ModelReady(request, _as_context(call))
        return json_reply({"name": name, "ready": found.ready}, 200 if found.ready else 503)

    async def model(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Name the tensors of a model."""
        name, version = _named(call)
        request = pb.ModelMetadataRequest(name=name, version=version)
        return _small(await self._service.ModelMetadata(request, _as_context(call)))

    async def config(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Give the configuration of a model."""
        name, version = _named(call)
        request = pb.ModelConfigRequest(name=name, version=version)
        return _small((await self._service.ModelConfig(request, _as_context(call))).config)

    async def statistics(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Count and time what has happened."""
        name, version = _named(call)
        request = pb.ModelStatisticsRequest(name=name, version=version)
        return _small(await self._service.ModelStatistics(request, _as_context(call)))

    async def index(self, call: HttpCall, body: bytes) -> HttpReply:
        """List the models of the repository."""
        ready = bool(IndexBody.read(body or b"{}").ready)
        request = pb.RepositoryIndexRequest(ready=ready)
        found = await self._service.RepositoryIndex(request, _as_context(call))
        return json_reply(
            [
                {
                    "name": one.name,
                    "version": one.version,
                    "state": one.state,
                    "reason": one.reason,
                }
                for one in found.models
            ]
        )

    async def load(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Serve a model as it is in the repository now."""
        request = pb.RepositoryModelLoadRequest(model_name=call.params["model"])
        await self._service.RepositoryModelLoad(request, _as_context(call))
        return json_reply({})

    async def unload(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Serve no version of a model any more."""
        request = pb.RepositoryModelUnloadRequest(model_name=call.params["model"])
        await self._service.RepositoryModelUnload(request, _as_context(call))
        return json_reply({})

    async def infer(self, call: HttpCall, body: bytes) -> HttpReply:
        """Answer a request."""
        name, version = _named(call)
        head, tail = _parts(call, body)
        await check_values(head)
        asked = InferBody.read(head)
        with self._models.find(name, version, "model_name") as model:
            reading = _message(asked, tail, large=len(body) > LEAST_BYTES)
            request = await model.jobs.run(reading)
            request.model_name, request.model_version = name, version
            response = await self._service.ModelInfer(request, _as_context(call))
            return await model.jobs.run(_answer(response, asked))


def _get(
    path: str, answer: Any, meaning: str, gives: answers.Schema, *, public: bool = False
) -> Route:
    return Route("GET", path, answer, v2_form, meaning, scope=None, public=public, gives=gives)


def _as_context(call: HttpCall) -> Any:
    """A call, which is as much of gRPC's context as the service looks at."""
    return call


def _named(call: HttpCall) -> tuple[str, str]:
    return call.params.get("model", ""), call.params.get("version", "")


def _small(message: Any) -> HttpReply:
    """A message in JSON, numbers of 64 bits as such."""
    steps = written_message(message, numbers=True)
    try:
        while True:
            next(steps)
    except StopIteration as ended:
        return HttpReply(ended.value)


def _parts(call: HttpCall, body: bytes) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the bytes behind it."""
    length = call.headers.get(HEADER)
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdecimal()) or int(length[:20]) > len(body):
        raise InvalidInput(
            f"header {HEADER} is {length[:20]!r}, and the body has {len(body)} bytes: send the "
            "length of its JSON",
            field=f"header {HEADER}",
        )
    size = int(length)
    return body[:size], memoryview(body)[size:]


def _message(asked: InferBody, tail: memoryview, *, large: bool) -> Steps[pb.ModelInferRequest]:
    """The request as gRPC has it, all tensors in bytes."""
    if large:
        yield LONG
    request = pb.ModelInferRequest(id=asked.id or "")
    place = 0
    for number, one in enumerate(asked.inputs):
        field = f"inputs[{number}]"
        shape = one.shape or []
        added = request.inputs.add(name=one.name, datatype=one.datatype, shape=_shape(shape, field))
        _parameters(one.parameters, added.parameters)
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            request.raw_input_contents.append(_raw(one, field))
            continue
        if type(size) is not int or not 0 <= size <= len(tail) - place:
            raise InvalidInput(
                f"{field}.parameters.binary_data_size is {shown(size)}, and {len(tail) - place} "
                f"bytes are left behind the JSON: send so many, and its length in {HEADER}",
                field=f"{field}.parameters.binary_data_size",
            )
        request.raw_input_contents.append(bytes(tail[place : place + size]))
        place += size
    if place < len(tail):
        raise InvalidInput(
            f"{len(tail) - place} bytes behind the JSON belong to no input: send their number in "
            "binary_data_size",
            field="inputs",
        )
    for wanted in asked.outputs or ():
        _parameters(wanted.parameters, request.outputs.add(name=wanted.name).parameters)
    _parameters(asked.parameters, request.parameters)
    return request


def _shape(shape: Sequence[int], field: str) -> Sequence[int]:
    if any(not -(2**63) <= one < 2**63 for one in shape):
        raise InvalidInput(f"{field}.shape: send sizes of the tensor's axes", field=field)
    return shape


def _raw(one: InferTensor, field: str) -> bytes:
    """The elements of a tensor in JSON, nested or flat, as raw contents have them."""
    if one.data is None:
        raise InvalidInput(
            f"{field} has neither data nor binary_data_size: send one of them", field=field
        )
    if one.datatype == "BYTES":
        return b"".join(
            _LENGTH.pack(len(text)) + text for text in _strings(one.data, f"{field}.data")
        )
    kind = _TYPES.get(one.datatype)
    if kind is None:
        raise InvalidInput(
            f"{field}.datatype is {shown(one.datatype)}: send BYTES, or one of {', '.join(_TYPES)}",
            field=f"{field}.datatype",
        )
    try:
        array = np.array(one.data)
        if array.size and array.dtype.kind not in "iufb":
            raise ValueError("they are no numbers")  # noqa: TRY301 - said as numpy's own are
        return array.astype(kind, casting="same_kind").tobytes()
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"{field}.data are no {one.datatype} ({error}): send numbers, flat or in lists of one "
            "length",
            field=f"{field}.data",
        ) from None


def _strings(data: Any, field: str) -> Iterator[bytes]:
    """Strings, from lists in lists or not."""
    if isinstance(data, str):
        yield data.encode()
    elif isinstance(data, list):
        for one in data:
            yield from _strings(one, field)
    else:
        raise InvalidInput(f"{field} has {shown(data)}: send strings", field=field)


def _parameters(given: Mapping[str, Any] | None, into: Any) -> None:
    """Parameters, each in the field of its kind; lists and objects as JSON."""
    for name, value in (given or {}).items():
        if value is None or name.startswith("triton_"):
            continue
        parameter = into[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            parameter.int64_param = value
        elif isinstance(value, int | float):
            parameter.double_param = value
        else:
            parameter.string_param = value if isinstance(value, str) else orjson.dumps(value)


def _answer(response: bytes, asked: InferBody) -> Steps[HttpReply]:
    """The response, its outputs in JSON or in bytes as they are wanted."""
    if len(response) > LEAST_BYTES:
        yield LONG
    found = pb.ModelInferResponse.FromString(response)
    all_binary = (asked.parameters or {}).get("binary_data_output") is True
    binary = {
        one.name: (one.parameters or {}).get("binary_data", all_binary)
        for one in asked.outputs or ()
    }
    heads, tail = [], []
    for output, raw in zip(found.outputs, found.raw_output_contents, strict=True):
        head: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if binary.get(output.name, all_binary):
            head["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            head["data"] = _data(output.datatype, raw)
        heads.append(written(head))
        yield
    known = {"model_name": found.model_name, "model_version": found.model_version}
    if found.id:
        known["id"] = found.id
    text = b'%s,"outputs":[%s]}' % (written(known)[:-1], b",".join(heads))
    if not tail:
        return HttpReply(text)
    reply = HttpReply(b"".join([text, *tail]), content_type=_BINARY)
    reply.headers.append(("inference-header-content-length", str(len(text))))
    return reply


def _data(datatype: str, raw: bytes) -> Any:
    """The elements of an output, flat."""
    if datatype != "BYTES":
        return np.frombuffer(raw, _TYPES[datatype])
    texts, place = [], 0
    while place < len(raw):
        (size,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size
        texts.append(raw[place : place + size].decode())
        place += size
    return texts
