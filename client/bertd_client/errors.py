"""What can go wrong, as exceptions.

::

    BertdError              code, message, violations, index, retry_after_s, reason, request_id
    ├── InvalidArgument     INVALID_ARGUMENT: the request must change; see violations
    │                       (RESOURCE_EXHAUSTED where its message is too large for gRPC)
    ├── NotFound            NOT_FOUND: no model has that name
    ├── WrongTask           FAILED_PRECONDITION, reason WRONG_TASK: the model is for another task;
    │                       the message names both tasks
    ├── Unauthenticated     UNAUTHENTICATED: the server wants an API key, or does not know this one
    ├── PermissionDenied    PERMISSION_DENIED: the API key, or the address, is not for this call
    ├── DeadlineExceeded    DEADLINE_EXCEEDED: the timeout passed, or is too short for the work
    ├── Overloaded          RESOURCE_EXHAUSTED: too much is waiting at the server, through the
    │                       retries or for the timeout
    ├── Unavailable         UNAVAILABLE: no server could be reached through the retries; where
    │                       the two disagree on TLS, the message says on what
    ├── Cancelled           CANCELLED: the call was cancelled
    └── ServerError         any other code: the server is at fault
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that the server refused."""

    field: str
    """Path of the field, such as ``texts[3]``."""
    description: str
    """What is wrong with it, and the remedy."""


class BertdError(Exception):
    """Any failure of a call, or of one input of a call.

    Attributes:
        code: The gRPC status code.
        message: What went wrong and what to do about it.
        violations: The refused fields, when the server names them.
        index: Which of the inputs failed; ``None`` if the call failed as a whole.
        retry_after_s: Seconds after which the server expects to have room; ``None`` if it did not
            say.
        reason: A word to switch on, such as ``"TOO_LONG"``; docs/api.md lists them. Empty if the
            server gave none, or none for this input alone.
        request_id: By which the server's log knows the call; empty if it did not say.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - an error's parts; pickle passes them by position
        self,
        code: grpc.StatusCode,
        message: str,
        violations: Sequence[FieldViolation] = (),
        index: int | None = None,
        retry_after_s: float | None = None,
        reason: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(code, message, tuple(violations), index, retry_after_s, reason, request_id)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.index = index
        self.retry_after_s = retry_after_s
        self.reason = reason
        self.request_id = request_id

    def __str__(self) -> str:
        if self.index is None or f"[{self.index}]" in self.message:
            return self.message
        return f"input {self.index}: {self.message}"

    def at(self, index: int, field: str, asked: int | None = None) -> BertdError:
        """The same as the error of one input.

        Args:
            index: Of the input among all.
            field: Of the request in which inputs are.
            asked: Its index in the request that failed, if that is another: messages and
                violations then name the former.
        """
        if asked is not None and asked != index:
            old, new = f"{field}[{asked}]", f"{field}[{index}]"
        else:
            old = new = ""
        violations = tuple(
            FieldViolation(one.field.replace(old, new), one.description.replace(old, new))
            for one in self.violations
        )
        message = self.message.replace(old, new)
        return type(self)(
            self.code,
            message,
            violations,
            index,
            self.retry_after_s,
            self.reason,
            self.request_id,
        )


class InvalidArgument(BertdError):
    """The request must change before it can succeed."""


class NotFound(BertdError):
    """The server has no such model."""


class WrongTask(BertdError):
    """The model is for another task than the call."""


class Unauthenticated(BertdError):
    """The server wants an API key, or does not know this one."""


class PermissionDenied(BertdError):
    """The API key is not for this call."""


class DeadlineExceeded(BertdError):
    """The timeout passed before the answer came."""


class Overloaded(BertdError):
    """The server has more work than it accepts; try again later."""


class Unavailable(BertdError):
    """No server could be reached."""


class Cancelled(BertdError):
    """The call was cancelled."""


class ServerError(BertdError):
    """The server failed, or answered with something that is no answer."""


_CLASSES: dict[grpc.StatusCode, type[BertdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
}
# gRPC's own refusal of a message, on either side: not a queue that will be shorter later.
_OVERSIZED = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")
_WRONG_TASK = "WRONG_TASK"
_DOMAIN = "bertd"  # of reasons that are the server's own
NO_AGREEMENT = "NO_AGREEMENT"
"""Reason of :class:`Unavailable` where a server is there, and the two do not come to terms."""
# What gRPC and BoringSSL say of a connection that both sides could not agree on, and the remedy.
_CONNECTIONS: tuple[tuple[str, str], ...] = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        (
            "the server's certificate is not of a CA that this client trusts: give the file of "
            "its CA (ca, --ca)"
        ),
    ),
    (
        "Hostname Verification Check failed",
        (
            "the server's certificate is for another name than the address: connect by the name "
            "that it has"
        ),
    ),
    (
        "WRONG_VERSION_NUMBER",
        (
            "the server speaks no TLS, and this client does: leave tls, ca and certificate (--tls, "
            "--ca, --cert) away, or start the server with --tls-certificate and --tls-key"
        ),
    ),
    (
        r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE_ON_CLIENT_HELLO|UNKNOWN_CA|CERTIFICATE_EXPIRED",
        (
            "the server wants a certificate of this client, of a CA that it trusts: give "
            "certificate and key (--cert, --key)"
        ),
    ),
    (
        "failed to connect to all addresses.*(Socket closed|Connection reset|Broken pipe)",
        (
            "the server ended the connection before any call: it speaks TLS (tls or ca; --tls, "
            "--ca), wants a certificate (certificate, key; --cert, --key), or has as many "
            "connections as it takes (--max-connections)"
        ),
    ),
)
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(status: status_pb2.Status) -> BertdError:
    """Translates the ``google.rpc.Status`` of one input or of a call."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    reason = _reason(status)
    kind = WrongTask if reason == _WRONG_TASK else _CLASSES.get(code, ServerError)
    message = status.message or code.name
    return kind(
        code,
        message,
        _violations(status),
        None,
        _retry_after(status),
        reason,
        _request_id(status),
    )


def from_rpc_error(error: grpc.RpcError | grpc.FutureCancelledError) -> BertdError:
    """Translates the failure of a call, synchronous or not; raise it ``from error``."""
    if isinstance(error, grpc.FutureCancelledError):
        return Cancelled(
            grpc.StatusCode.CANCELLED, "the call was cancelled, or its client was closed"
        )
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return ServerError(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)
    call: Any = error  # an RpcError that is also the Call
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # the details contradict the code, or are garbled
        status = None
    if status is not None:
        return from_status(status)
    code: grpc.StatusCode = call.code()
    sizes = _OVERSIZED.search(call.details() or "")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and sizes:
        message = (
            f"the call's message has {sizes[1]} bytes, the limit is {sizes[2]}: "
            "send fewer or shorter texts in a call"
        )
        return InvalidArgument(code, message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # the client's own clock, not the server
        return DeadlineExceeded(code, "no answer came within the timeout: allow more time")
    message, reason = _explained(call.details() or code.name)
    return _CLASSES.get(code, ServerError)(code, message, reason=reason)


def _explained(details: str) -> tuple[str, str]:
    """What gRPC says, with a remedy before it where one is known; and the reason."""
    for pattern, remedy in _CONNECTIONS:
        if re.search(pattern, details):
            return f"{remedy} [{details}]", NO_AGREEMENT
    return details, ""


def _reason(status: status_pb2.Status) -> str:
    for detail in _details(status, error_details_pb2.ErrorInfo):
        if detail.domain == _DOMAIN:
            return str(detail.reason)
    return ""


def _violations(status: status_pb2.Status) -> tuple[FieldViolation, ...]:
    return tuple(
        FieldViolation(violation.field, violation.description)
        for detail in _details(status, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    )


def _retry_after(status: status_pb2.Status) -> float | None:
    for detail in _details(status, error_details_pb2.RetryInfo):
        return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None


def _request_id(status: status_pb2.Status) -> str:
    for detail in _details(status, error_details_pb2.RequestInfo):
        return str(detail.request_id)
    return ""


def _details(status: status_pb2.Status, kind: type[Any]) -> list[Any]:
    """The details of one kind; garbled ones are passed over."""
    found = []
    for packed in status.details:
        detail = kind()
        try:
            matches = packed.Unpack(detail)
        except DecodeError:
            continue
        if matches:
            found.append(detail)
    return found
