"""Tensors on the wire and in memory.

A tensor's elements are in typed contents, or raw: all of a message's tensors in one way. Raw
numbers are little-endian; a raw string follows its length, a little-endian integer of 4 bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bertd.oip import grpc_service_pb2 as pb
from numpy.typing import NDArray

from bertd_server.errors import InvalidInput
from bertd_server.rpc.encoding import Pieces, within
from bertd_server.rpc.v2.parameters import for_model
from bertd_server.scheduling.executor import Steps

BYTES, INT32, INT64, FP32 = "BYTES", "INT32", "INT64", "FP32"
INT8, UINT8 = "INT8", "UINT8"
TEXT, TOKENS = (BYTES,), (INT64, INT32)  # what tensors of texts, and of tokens, may be

_TYPED_ELEMENTS, _RAW_ELEMENTS = 16_384, 262_144  # in a step: some tenths of a ms
_MOST_AXES = 4  # no input has more than 2
_LENGTH = struct.Struct("<I")
_NUMBERS: Mapping[str, tuple[str, str]] = {  # type on the wire, field of typed contents
    INT8: ("<i1", "int_contents"),
    UINT8: ("<u1", "uint_contents"),
    INT32: ("<i4", "int_contents"),
    INT64: ("<i8", "int64_contents"),
    FP32: ("<f4", "fp32_contents"),
}
_KINDS = {"b": INT8, "B": UINT8}  # of arrays; all other numbers are FP32 or INT64


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array: `values` of shape `shape`, or as many strings of bytes, row after row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[bytes]

    @property
    def strings(self) -> list[bytes]:
        """The elements of a tensor of strings."""
        return self.values if isinstance(self.values, list) else []

    @property
    def numbers(self) -> NDArray[Any]:
        """The elements of a tensor of numbers."""
        return np.empty(0) if isinstance(self.values, list) else self.values


def numbers(name: str, array: NDArray[Any]) -> Tensor:
    """A tensor of floats, bytes or other integers, by the array's own kind."""
    datatype = _KINDS.get(array.dtype.char) or (FP32 if array.dtype.kind == "f" else INT64)
    return Tensor(name, datatype, array.shape, array)


def strings(name: str, rows: Sequence[Sequence[str]]) -> Tensor:
    """A tensor of texts, `[rows, columns]`."""
    shape = (len(rows), len(rows[0]) if rows else 0)
    return Tensor(name, BYTES, shape, [text.encode() for row in rows for text in row])


def is_raw(request: pb.ModelInferRequest) -> bool:
    """Whether a request's elements are in raw contents."""
    return bool(request.raw_input_contents)


def read(
    request: pb.ModelInferRequest, known: Mapping[str, Collection[str]], max_elements: int
) -> dict[str, Tensor]:
    """The inputs of a request by name.

    Args:
        request: with typed or raw contents.
        known: names that the model takes, and the datatypes that each may have.
        max_elements: that a tensor of strings may have.

    Raises:
        InvalidInput: a tensor is unknown, there twice, of another type, or not of its shape.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries and inputs has {len(request.inputs)}: "
            "send one for each input, in their order, or none",
            field="raw_input_contents",
        )
    tensors: dict[str, Tensor] = {}
    for number, given in enumerate(request.inputs):
        _check_name(given, number, tensors, known)
        if raw and given.HasField("contents"):
            raise InvalidInput(
                f"{given.name} has contents and the request has raw_input_contents: use one of "
                "them for all inputs",
                field=given.name,
            )
        count = _count(given)
        if given.datatype == BYTES:
            if count > max_elements:
                raise InvalidInput(
                    f"{given.name} has {count} elements, a call takes at most {max_elements}: "
                    "split it into several calls",
                    field=given.name,
                    reason="too_many",
                    limit=max_elements,
                )
            values: NDArray[Any] | list[bytes] = (
                list(_raw_strings(given.name, raw[number], count))
                if raw
                else list(given.contents.bytes_contents)
            )
        else:
            values = _raw_numbers(given, raw[number]) if raw else _typed_numbers(given)
        if len(values) != count:
            place = "raw_input_contents" if raw else f"the contents of {given.datatype}"
            raise InvalidInput(
                f"{given.name} has shape {list(given.shape)}, which is {count} elements, and "
                f"{place} has {len(values)}: send as many as the shape says",
                field=given.name,
            )
        shape = tuple(given.shape)
        if not isinstance(values, list):
            values = values.reshape(shape)
        tensors[given.name] = Tensor(given.name, given.datatype, shape, values)
    return tensors


def write(
    tensors: Iterable[Tensor], response: pb.ModelInferResponse, *, raw: bool
) -> Steps[Pieces]:
    """The bytes of a response with outputs, raw or typed."""
    pieces: Pieces = []
    for tensor in tensors:
        output = response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        if raw:
            elements = yield from _raw(tensor)
            pieces += within(pb.ModelInferResponse, "raw_output_contents", elements)
        elif tensor.datatype == BYTES:
            output.contents.bytes_contents.extend(tensor.strings)
        else:
            kind, field = _NUMBERS[tensor.datatype]
            values = np.ascontiguousarray(tensor.numbers, kind).ravel()
            contents = getattr(output.contents, field)
            for start in range(0, len(values), _TYPED_ELEMENTS):
                contents.extend(values[start : start + _TYPED_ELEMENTS].tolist())
                yield
        yield
    return [response.SerializeToString(), *pieces]


def _raw(tensor: Tensor) -> Steps[Pieces]:
    """The elements of an output, as raw contents have them."""
    if tensor.datatype == BYTES:
        return [_LENGTH.pack(len(one)) + one for one in tensor.strings]
    values = np.ascontiguousarray(tensor.numbers, _NUMBERS[tensor.datatype][0]).ravel()
    pieces = []
    for start in range(0, len(values), _RAW_ELEMENTS):
        pieces.append(values[start : start + _RAW_ELEMENTS].tobytes())
        yield
    return pieces


def _check_name(
    given: Any, number: int, before: Collection[str], known: Mapping[str, Collection[str]]
) -> None:
    if given.name not in known:
        raise InvalidInput(
            f"inputs[{number}] is named {given.name!r}, which the model does not take; it takes "
            f"{', '.join(known)}",
            field=f"inputs[{number}]",
        )
    if given.name in before:
        raise InvalidInput(
            f"inputs[{number}] is {given.name}, which is there already: send it once",
            field=given.name,
        )
    for parameter in for_model(given.parameters, given.name):
        shared = parameter.startswith("shared_memory")
        raise InvalidInput(
            f"{given.name} has the parameter {parameter!r}: "
            + (
                "the server reads no shared memory, send the elements in the request"
                if shared
                else "inputs have none, leave it out"
            ),
            field=given.name,
        )
    allowed = known[given.name]
    if given.datatype not in allowed:
        raise InvalidInput(
            f"{given.name} has datatype {given.datatype!r}: send {' or '.join(allowed)}",
            field=given.name,
        )


def _count(given: Any) -> int:
    """Elements that a tensor's shape asks for."""
    axes = list(given.shape)
    if not 1 <= len(axes) <= _MOST_AXES or min(axes) < 1:
        shape = str(axes) if len(axes) <= _MOST_AXES else f"of {len(axes)} axes"
        raise InvalidInput(
            f"{given.name} has shape {shape}: send 1 to {_MOST_AXES} axes, each of "
            "length 1 or more",
            field=given.name,
        )
    return math.prod(given.shape)


def _raw_strings(name: str, data: bytes, count: int) -> Iterator[bytes]:
    place = 0
    for number in range(count):
        if place + _LENGTH.size > len(data):
            raise InvalidInput(
                f"{name} should have {count} elements and its raw contents end after {number}: "
                "write each one after its length, a little-endian integer of 4 bytes",
                field=name,
            )
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > len(data):
            raise InvalidInput(
                f"{name}[{number}] should have {length} bytes and {len(data) - place} are left: "
                "write each element after its length, a little-endian integer of 4 bytes",
                field=f"{name}[{number}]",
            )
        yield data[place : place + length]
        place += length
    if place != len(data):
        raise InvalidInput(
            f"{name} has {len(data) - place} bytes of raw contents after its {count} elements: "
            "send as many elements as the shape says",
            field=name,
        )


def _raw_numbers(given: Any, data: bytes) -> NDArray[Any]:
    kind = np.dtype(_NUMBERS[given.datatype][0])
    if len(data) % kind.itemsize:
        raise InvalidInput(
            f"{given.name} has {len(data)} bytes of raw contents, which is no multiple of "
            f"{kind.itemsize}: write {given.datatype} in little-endian order",
            field=given.name,
        )
    return np.frombuffer(data, kind)


def _typed_numbers(given: Any) -> NDArray[Any]:
    kind, field = _NUMBERS[given.datatype]
    return np.array(getattr(given.contents, field), kind)
