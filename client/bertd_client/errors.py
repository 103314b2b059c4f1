"""What can go wrong, as exceptions.

::

    BertdError              code, message, violations, index
    ├── InvalidArgument     INVALID_ARGUMENT: the request must change; see violations
    │                       (RESOURCE_EXHAUSTED where its message is too large for gRPC)
    ├── NotFound            NOT_FOUND: no model has that name
    ├── DeadlineExceeded    DEADLINE_EXCEEDED: the timeout passed
    ├── Overloaded          RESOURCE_EXHAUSTED: the server's queue stayed full through the retries
    ├── Unavailable         UNAVAILABLE: no server could be reached through the retries
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
    """Any failure of a call, or of one text of a call.

    Attributes:
        code: The gRPC status code.
        message: What went wrong and what to do about it.
        violations: The refused fields, when the server names them.
        index: Which of the call's texts failed; ``None`` if the call failed as a whole.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        violations: Sequence[FieldViolation] = (),
        index: int | None = None,
    ) -> None:
        super().__init__(code, message, tuple(violations), index)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.index = index

    def __str__(self) -> str:
        where = f"texts[{self.index}]"
        if self.index is None or where in self.message:
            return self.message
        return f"{where}: {self.message}"


class InvalidArgument(BertdError):
    """The request must change before it can succeed."""


class NotFound(BertdError):
    """The server has no such model."""


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
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
}
# gRPC's own refusal of a message, on either side: not a queue that will be shorter later.
_OVERSIZED = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(status: status_pb2.Status, index: int | None = None) -> BertdError:
    """Translates the ``google.rpc.Status`` of one text or of a call."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _CLASSES.get(code, ServerError)
    return kind(code, status.message or code.name, _violations(status), index)


def from_rpc_error(error: grpc.RpcError) -> BertdError:
    """Translates the failure of a call, synchronous or not; raise it ``from error``."""
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
        return InvalidArgument(code, message, (FieldViolation("texts", message),))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # the client's own clock, not the server
        return DeadlineExceeded(code, "no answer came within the timeout: allow more time")
    return _CLASSES.get(code, ServerError)(code, call.details() or code.name)


def _violations(status: status_pb2.Status) -> tuple[FieldViolation, ...]:
    found: list[FieldViolation] = []
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        try:
            matches = detail.Unpack(bad_request)
        except DecodeError:
            continue
        if matches:
            found.extend(
                FieldViolation(violation.field, violation.description)
                for violation in bad_request.field_violations
            )
    return tuple(found)
