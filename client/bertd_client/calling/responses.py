"""From responses to outcomes: what the readers of all tasks share.

A reader takes a response and the places of the inputs that were asked for in it, and gives the
outcome of each by its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from bertd.v1 import inference_pb2 as pb
from numpy.typing import NDArray

from bertd_client.errors import BertdError, ServerError, from_status

R = TypeVar("R")
Outcomes = Iterator[tuple[int, R | BertdError]]
ReadResponse = Callable[[Any, Sequence[int]], Outcomes[R]]

_BYTES: dict[int, tuple[type[np.integer[Any]], int]] = {  # kind, values in each
    pb.VECTOR_DTYPE_INT8: (np.int8, 1),
    pb.VECTOR_DTYPE_UINT8: (np.uint8, 1),
    pb.VECTOR_DTYPE_BINARY: (np.int8, 8),
    pb.VECTOR_DTYPE_UBINARY: (np.uint8, 8),
}


def each(read: Callable[[Any, Any], R]) -> ReadResponse[R]:
    """A reader of one result per input, in order; `read` takes it and its response.

    Raises:
        ServerError: (the reader) the response has another number of results than of inputs.
    """

    def outcomes(response: Any, places: Sequence[int]) -> Outcomes[R]:
        for result, place in _matched(response.results, places):
            yield place, outcome_of(result, response, read)

    return outcomes


def plain(field: str) -> ReadResponse[Any]:
    """A reader of a field with one value per input; why there is none stands in `errors`.

    Raises:
        ServerError: (the reader) the response has another number of values than of inputs.
    """

    def outcomes(response: Any, places: Sequence[int]) -> Outcomes[Any]:
        for index, (value, place) in enumerate(_matched(getattr(response, field), places)):
            yield place, from_status(response.errors[index]) if index in response.errors else value

    return outcomes


def _matched(found: Sequence[Any], places: Sequence[int]) -> Iterator[tuple[Any, int]]:
    if len(found) != len(places):
        raise broken(f"{len(found)} results for {len(places)} inputs")
    return zip(found, places, strict=True)


def outcome_of(result: Any, response: Any, read: Callable[[Any, Any], R]) -> R | BertdError:
    """The error of a result, or what `read` makes of it and its response."""
    if result.HasField("error"):
        return from_status(result.error)
    if "outcome" in result.DESCRIPTOR.oneofs_by_name and result.WhichOneof("outcome") is None:
        return broken("a result without an outcome")
    try:
        return read(result, response)
    except ServerError as error:
        return error


def settled(outcomes: Sequence[R | BertdError]) -> list[R]:
    """Takes the answers.

    Raises:
        BertdError: That of the first input that failed; its ``index`` says which.
    """
    found: list[R] = []
    for outcome in outcomes:
        if isinstance(outcome, BertdError):
            raise outcome
        found.append(outcome)
    return found


def vectors(data: bytes, rows: int, dimensions: int) -> NDArray[np.float32]:
    """Vectors of little-endian float32, as an array of shape (rows, dimensions).

    Raises:
        ServerError: There are not so many.
    """
    if len(data) != 4 * rows * dimensions:
        raise broken(f"{len(data)} bytes for {rows} x {dimensions} float32 values")
    return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(rows, dimensions)


def quantized(data: bytes, dimensions: int, dtype: int) -> NDArray[Any]:
    """A vector, one-dimensional, of float32, int8 or uint8 by its `VectorDtype`.

    Raises:
        ServerError: It has another length, or a dtype that is not known here.
    """
    if dtype in {pb.VECTOR_DTYPE_UNSPECIFIED, pb.VECTOR_DTYPE_FLOAT32}:
        row: NDArray[Any] = vectors(data, 1, dimensions)[0]
        return row
    if dtype not in _BYTES:
        raise broken(f"vectors of the dtype {dtype}, which this client does not know: update it")
    kind, values_of_a_byte = _BYTES[dtype]
    if len(data) != -(-dimensions // values_of_a_byte):
        name = pb.VectorDtype.Name(pb.VectorDtype.ValueType(dtype))
        raise broken(f"{len(data)} bytes for {dimensions} dimensions of {name}")
    found: NDArray[Any] = np.frombuffer(data, kind).copy()
    return found


def broken(what: str) -> ServerError:
    """A response that is no answer."""
    return ServerError(grpc.StatusCode.INTERNAL, f"the server sent {what}")
