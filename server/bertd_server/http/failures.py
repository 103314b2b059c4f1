"""Errors over HTTP: a status of its own for each code, and a form for each protocol.

::

    RequestError ──rpc.status──> google.rpc.Status ──> Failure ──> Form ──> status, headers, JSON
    a service's abort ───────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from bertd_server.errors import Overloaded, RequestError
from bertd_server.http.call import Aborted
from bertd_server.http.replies import HttpReply, json_reply
from bertd_server.rpc.status import to_status

# As google.rpc.Code maps them; 499 is what proxies call a client that has left.
_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What HTTP has a status of its own for, by the reason.
NO_ROUTE, NO_METHOD, TOO_LARGE, TOO_SLOW, NO_ENCODING = (
    "no_route", "no_method", "body_too_large", "body_too_slow", "unsupported_encoding",
)  # fmt: skip
_OF_HTTP = {NO_ROUTE: 404, NO_METHOD: 405, TOO_LARGE: 413, TOO_SLOW: 408, NO_ENCODING: 415}
_SOON = 1.0  # seconds; a server that starts, or goes, is asked again then


class Refused(Exception):
    """Inputs of a call cannot be answered, and so neither can the call."""

    def __init__(self, *errors: RequestError) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call has no answer.

    Attributes:
        code: of gRPC.
        message: with field, limit and remedy.
        field: of the request; empty if it is none.
        reason: to switch on, in small letters.
        status: of HTTP.
        retry_seconds: until there may be room; 0 where time does not help.
        in_vain: whether the same call would be refused again.
        rich: the same with all details.
    """

    code: grpc.StatusCode
    message: str
    field: str
    reason: str
    status: int
    retry_seconds: float
    in_vain: bool
    rich: status_pb2.Status


Form = Callable[[Failure], tuple[int, Any]]
"""The status of HTTP, and the body, in the way of a protocol."""


def failure_of(error: RequestError | Refused | Aborted) -> Failure:
    """What an error says."""
    if isinstance(error, Aborted):
        return _failure(error.status, in_vain=error.in_vain)
    errors = error.errors if isinstance(error, Refused) else (error,)
    first = errors[0]
    return _failure(to_status(*errors), in_vain=isinstance(first, Overloaded) and first.in_vain)


def internal() -> Failure:
    """A fault of the server's own, of which callers learn no more."""
    code = grpc.StatusCode.INTERNAL
    message = "the server failed: its log says why"
    rich = status_pb2.Status(code=code.value[0], message=message)
    return Failure(code, message, "", "internal", 500, 0.0, False, rich)


def _failure(rich: status_pb2.Status, *, in_vain: bool) -> Failure:
    code = _CODES.get(rich.code, grpc.StatusCode.UNKNOWN)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in rich.details:
        for kind in (info, retry):
            if detail.Is(cast("Message", kind).DESCRIPTOR):
                detail.Unpack(kind)
    wait = retry.retry_delay.ToTimedelta().total_seconds()
    if code is grpc.StatusCode.UNAVAILABLE:
        wait = _SOON
    reason = info.reason.lower()
    status = _OF_HTTP.get(reason) or _STATUS.get(code, 500)
    field = info.metadata.get("field", "")
    return Failure(code, rich.message, field, reason, status, wait, in_vain, rich)


def reply_of(failure: Failure, form: Form) -> HttpReply:
    """The answer that says so."""
    status, body = form(failure)
    reply = json_reply(body, status)
    if failure.retry_seconds:
        reply.headers += [
            ("retry-after", str(max(1, math.ceil(failure.retry_seconds)))),
            ("retry-after-ms", str(max(1, math.ceil(1000 * failure.retry_seconds)))),
        ]
    if failure.in_vain:
        reply.headers.append(("x-should-retry", "false"))
    if status == 401:
        reply.headers.append(("www-authenticate", "Bearer"))
    return reply


# The forms.

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def openai_form(failure: Failure) -> tuple[int, Any]:
    """OpenAI's object; its clients read a message beside it too, where they lose the object's."""
    kind = _OPENAI_TYPES.get(failure.status) or (
        "invalid_request_error" if failure.status < 500 else "server_error"
    )
    error = {
        "message": failure.message,
        "type": kind,
        "param": failure.field or None,
        "code": failure.reason or None,
    }
    return failure.status, {"error": error, "message": failure.message}


_TEI: Mapping[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (422, "Validation"),
    grpc.StatusCode.FAILED_PRECONDITION: (424, "Backend"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "Overloaded"),
    grpc.StatusCode.UNAVAILABLE: (503, "Unhealthy"),
}


def tei_form(failure: Failure) -> tuple[int, Any]:
    """That of text-embeddings-inference."""
    status, kind = _TEI.get(failure.code, (failure.status, "Backend"))
    if failure.reason in _OF_HTTP:
        status = failure.status
    elif failure.reason == "empty":
        status, kind = 400, "Empty"
    elif failure.status in {401, 403, 404}:
        kind = "Validation"
    return status, {"error": failure.message, "error_type": kind}


def cohere_form(failure: Failure) -> tuple[int, Any]:
    """Cohere's; Jina's tools read `detail`."""
    return failure.status, {"message": failure.message, "detail": failure.message}


def ranking_form(failure: Failure) -> tuple[int, Any]:
    """Both forms at once: what a client asks in is not known where its body cannot be read."""
    status, body = cohere_form(failure)
    return status, body | tei_form(failure)[1]


def v2_form(failure: Failure) -> tuple[int, Any]:
    """A string: Triton's client takes nothing else."""
    return failure.status, {"error": failure.message}


def form_of(path: str) -> Form:
    """That of the protocol to which a path would belong: its clients can read no other."""
    if path.startswith("/v1/tasks/"):
        return status_form
    return v2_form if path.startswith("/v2/") else openai_form


def status_form(failure: Failure) -> tuple[int, Any]:
    """google.rpc.Status, as JSON maps it."""
    return failure.status, MessageToDict(failure.rich)
