"""Every RPC of bertd.v1 as `POST /v1/tasks/METHOD`: its messages, as protobuf maps them to JSON.

::

    JSON ──json_format──> message ──the service──> bytes of the response ──message──> JSON

https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson
from bertd.v1 import inference_pb2, models_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bertd_server.errors import InvalidInput
from bertd_server.http.bodies import LEAST_BYTES
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import status_form
from bertd_server.http.front import Handler, Route
from bertd_server.http.messages import schema_of, written_message
from bertd_server.http.replies import HttpReply
from bertd_server.models.catalogue import Catalogue
from bertd_server.rpc.v1 import InferenceService, ModelService
from bertd_server.scheduling.executor import LONG, Steps

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
MODELS = models_pb2.DESCRIPTOR.services_by_name["ModelService"]
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class MethodCalls:
    """Answers the methods of bertd.v1; streams have no place here, a call has one request."""

    def __init__(
        self, models: Catalogue, inference: InferenceService, described: ModelService
    ) -> None:
        """Have the services answer; models are looked up anew for each call."""
        self._models = models
        self._inference = inference
        self._described = described

    def routes(self) -> Iterator[Route]:
        """What it answers: each method by its name, and in small letters with hyphens."""
        for method in INFERENCE.methods:
            if not method.client_streaming:
                behaviour = getattr(self._inference, method.name)
                yield from _named(method, self._infer(method, behaviour))
        for method in MODELS.methods:
            behaviour = getattr(self._described, method.name)
            yield from _named(method, _describe(method, behaviour), describes=True)

    def _infer(self, method: MethodDescriptor, behaviour: Behaviour) -> Handler:
        request_class = GetMessageClass(method.input_type)
        response_class = GetMessageClass(method.output_type)

        async def answer(call: HttpCall, body: bytes) -> HttpReply:
            given = _object(body)
            named = given.get("model")
            asked = call.model(named if isinstance(named, str) else "")
            with self._models.find(asked) as model:
                given["model"] = asked if named is None else named
                reading = _read(given, request_class, large=len(body) > LEAST_BYTES)
                request = await model.jobs.run(reading)
                response: bytes = await behaviour(request, call)
                return HttpReply(await model.jobs.run(_written(response, response_class)))

        return answer


def _describe(method: MethodDescriptor, behaviour: Behaviour) -> Handler:
    request_class = GetMessageClass(method.input_type)

    async def answer(call: HttpCall, body: bytes) -> HttpReply:
        request = _parsed(_object(body), request_class)
        response: Message = await behaviour(request, call)
        return HttpReply(_at_once(written_message(response)))

    return answer


def _named(
    method: MethodDescriptor, answer: Handler, *, describes: bool = False
) -> Iterator[Route]:
    for name in dict.fromkeys([hyphened(method.name), method.name]):
        yield Route(
            "POST",
            f"/v1/tasks/{name}",
            answer,
            status_form,
            method.full_name,
            scope=None if describes else "infer",
            schema=schema_of(method.input_type, numbers=True),
            gives=schema_of(method.output_type, numbers=False),
        )


def hyphened(name: str) -> str:
    """`TagTokens` as `tag-tokens`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _object(body: bytes) -> dict[str, Any]:
    """The object that a body is; none is an empty one."""
    try:
        found = orjson.loads(body or b"{}")
    except ValueError as error:
        raise InvalidInput(
            f"the body is no JSON ({error}): send an object in UTF-8", reason="undecodable"
        ) from None
    if not isinstance(found, dict):
        raise InvalidInput("the body is no JSON object: send one", reason="undecodable")
    return found


def _read(given: dict[str, Any], kind: type[Message], *, large: bool) -> Steps[Message]:
    """The message that an object says; a large one is not read on the event loop."""
    if large:
        yield LONG
    return _parsed(given, kind)


def _parsed(given: dict[str, Any], kind: type[Message]) -> Message:
    """The message. Fields that are not known are refused: with them values of enums would pass."""
    try:
        return json_format.ParseDict(given, kind())
    except json_format.ParseError as error:
        said = " ".join(str(error).split())
        raise InvalidInput(
            f"the body is no {kind.DESCRIPTOR.name}: {said}", reason="undecodable"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"the body is no {kind.DESCRIPTOR.name}: {error}; docs/api.md has its fields",
            reason="undecodable",
        ) from None


def _written(response: bytes, kind: type[Message]) -> Steps[bytes]:
    if len(response) > LEAST_BYTES:
        yield LONG
    return (yield from written_message(kind.FromString(response)))


def _at_once(steps: Steps[bytes]) -> bytes:
    """What steps give, where they are few."""
    try:
        while True:
            next(steps)
    except StopIteration as ended:
        found: bytes = ended.value
        return found
