"""Errors to gRPC statuses, in one place, for every RPC."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bertd_server.errors import InvalidInput, Overloaded, RequestError

# gRPC's clients that retry wait so long; a negative number keeps them from it.
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md
PUSHBACK = "grpc-retry-pushback-ms"
_NEVER = "-1"


def to_status(*errors: RequestError) -> status_pb2.Status:
    """google.rpc.Status of the first error, with what the caller needs to change or to wait.

    Each invalid input is a field violation; the first error, if it is for lack of room, has the
    time until there is some.
    """
    first = errors[0]
    status = status_pb2.Status(code=first.code.value[0], message=first.message)
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        for error in errors
        if isinstance(error, InvalidInput) and error.field
    ]
    if violations:
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if isinstance(first, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(_milliseconds(first))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], *errors: RequestError) -> NoReturn:
    """End the call with the status of the first error."""
    status = rpc_status.to_status(to_status(*errors))
    metadata = (*status.trailing_metadata, *_pushback(errors[0], context.time_remaining()))
    await context.abort(status.code, status.details, metadata)
    raise AssertionError("abort() returned")


def _pushback(error: RequestError, remaining: float | None) -> tuple[tuple[str, str], ...]:
    """When the client's gRPC should try again, if the call then has time left at all."""
    if not isinstance(error, Overloaded):
        return ()
    wait = _milliseconds(error)
    in_vain = error.in_vain or (remaining is not None and wait >= 1000 * remaining)
    return ((PUSHBACK, _NEVER if in_vain else str(wait)),)


def _milliseconds(error: Overloaded) -> int:
    return max(1, math.ceil(1000 * error.retry_after_seconds))


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
