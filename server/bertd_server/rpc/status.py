"""Errors to gRPC statuses, in one place, for every RPC.

::

    RequestError ──> code, message
              └────> details: ErrorInfo   always: a reason to switch on, limits in its metadata
                              BadRequest  each invalid input, by field
                              RetryInfo   for lack of room: when there is some
                              RequestInfo the request's id, where it has one
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bertd_server.errors import DeadlineMissed, InvalidInput, Overloaded, RequestError
from bertd_server.system.call_metrics import CURRENT, REQUEST_ID, given_id

# gRPC's clients that retry wait so long; a negative number keeps them from it.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md
PUSHBACK = "grpc-retry-pushback-ms"
NEVER = "-1"
LOAD_REPORT = "endpoint-load-metrics-bin"

DOMAIN = "bertd"
# A status travels in trailers, of which gRPC takes 8 KiB: twice as text, percent-encoded (three
# bytes for each that is not ASCII) and in base64.
_MESSAGE_BYTES = 600
_VIOLATION_BYTES = 2_000
_CUT = "…"


def to_status(*errors: RequestError) -> status_pb2.Status:
    """google.rpc.Status of the first error, with what the caller needs to change or to wait.

    Each invalid input is a field violation, as far as they fit; the first error, if it is for lack
    of room, has the time until there is some.
    """
    first = errors[0]
    status = status_pb2.Status(
        code=first.code.value[0], message=_clipped(first.message, _MESSAGE_BYTES)
    )
    status.details.append(_packed(_info(first)))
    violations = list(_violations(errors))
    if violations:
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if isinstance(first, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(_milliseconds(first))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _info(error: RequestError) -> error_details_pb2.ErrorInfo:
    """The reason, and the numbers of the message."""
    metadata = {"field": _clipped(error.field, _MESSAGE_BYTES // 2)} if error.field else {}
    if isinstance(error, InvalidInput):
        if error.limit is not None:
            metadata["limit"] = str(error.limit)
        if error.tokens:
            metadata["tokens"] = str(error.tokens)
    return error_details_pb2.ErrorInfo(
        reason=_reason(error).upper(), domain=DOMAIN, metadata=metadata
    )


def _reason(error: RequestError) -> str:
    return "deadline_missed" if isinstance(error, DeadlineMissed) else error.reason


def _violations(
    errors: Iterable[RequestError],
) -> Iterator[error_details_pb2.BadRequest.FieldViolation]:
    """What is wrong with each field, the first one always."""
    room = _VIOLATION_BYTES
    for error in errors:
        if not isinstance(error, InvalidInput) or not error.field:
            continue
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_clipped(error.field, _MESSAGE_BYTES // 2),
            description=_clipped(error.message, _MESSAGE_BYTES),
        )
        room -= violation.ByteSize()
        if room < 0:
            return
        yield violation


def _clipped(text: str, size: int) -> str:
    """A text of at most so many bytes of UTF-8; it may quote a request of any size."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= size:
        return encoded.decode()
    return encoded[: size - len(_CUT.encode())].decode(errors="ignore") + _CUT


async def abort(context: grpc.aio.ServicerContext[Any, Any], *errors: RequestError) -> NoReturn:
    """End the call with the status of the first error."""
    rich, identity = to_status(*errors), _identity(context, errors[0])
    if identity:
        rich.details.append(_packed(error_details_pb2.RequestInfo(request_id=identity[0][1])))
    status = rpc_status.to_status(rich)
    pushback = _pushback(errors[0], context.time_remaining())
    metadata = (*status.trailing_metadata, *pushback, *identity, *_load_report(context))
    try:
        await context.abort(status.code, status.details, metadata)
    except grpc.aio.AbortError as aborted:
        # gRPC keeps it with the call, and logs a fault where another one is raised. Its traceback
        # has the call's frames, which have the call: the request, and all that was read of it,
        # would stay until a collection.
        _forget_frames(aborted, asyncio.current_task())
        raise
    raise AssertionError("abort() returned")


def _forget_frames(error: BaseException, task: asyncio.Task[Any] | None) -> None:
    """Have an error without frames once the call's task has ended."""

    def forget(_: object) -> None:
        error.__traceback__ = error.__context__ = None

    if task is not None:
        task.add_done_callback(forget)


def _load_report(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[tuple[str, Any], ...]:
    """The load report that the call has already; the trailers of an abort replace what was set."""
    return tuple(one for one in context.trailing_metadata() or () if one[0] == LOAD_REPORT)


def _identity(
    context: grpc.aio.ServicerContext[Any, Any], error: RequestError
) -> tuple[tuple[str, str], ...]:
    """The request's id, for the trailers: that of the log, or the caller's own if there is one."""
    record = CURRENT.get()
    if record is not None:
        record.reason = _reason(error)
        return ((REQUEST_ID, record.id),)
    given = given_id(context.invocation_metadata())
    return ((REQUEST_ID, given),) if given else ()


def _pushback(error: RequestError, remaining: float | None) -> tuple[tuple[str, str], ...]:
    """When the client's gRPC should try again, if the call then has time left at all."""
    if not isinstance(error, Overloaded):
        return ()
    wait = _milliseconds(error)
    in_vain = error.in_vain or (remaining is not None and wait >= 1000 * remaining)
    return ((PUSHBACK, NEVER if in_vain else str(wait)),)


def _milliseconds(error: Overloaded) -> int:
    return max(1, math.ceil(1000 * error.retry_after_seconds))


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
