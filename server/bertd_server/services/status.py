"""Errors to gRPC statuses, in one place, for every RPC."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bertd_server.errors import InvalidInput, RequestError


def to_status(*errors: RequestError) -> status_pb2.Status:
    """google.rpc.Status of the first error, with a field violation for each invalid input."""
    first = errors[0]
    status = status_pb2.Status(code=first.code.value[0], message=first.message)
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        for error in errors
        if isinstance(error, InvalidInput) and error.field
    ]
    if violations:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=violations))
        status.details.append(detail)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], *errors: RequestError) -> NoReturn:
    """End the call with the status of the first error."""
    status = rpc_status.to_status(to_status(*errors))
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort() returned")
