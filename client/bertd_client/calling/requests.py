"""Arguments to what goes into requests: inputs one by one, options as fields.

An input that no message can carry (a lone surrogate) has its error here, before any call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from bertd.v1 import inference_pb2 as pb
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bertd_client.errors import BertdError, FieldViolation, InvalidArgument

Prepared = tuple[Any, int]
"""An input as the request has it, and its bytes there."""

_KINDS = {
    FieldDescriptor.CPPTYPE_UINT32: "a whole number from 0 to 4294967295",
    FieldDescriptor.CPPTYPE_STRING: "a string",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
}


def texts(given: Iterable[str], field: str) -> list[Prepared | BertdError]:
    """Takes texts.

    Raises:
        TypeError: It is one string, or holds something else than strings.
    """
    return [_text(text, f"{field}[{place}]") for place, text in enumerate(_several(given, field))]


def texts_or_pairs(
    given: Iterable[str | tuple[str, str]], field: str
) -> list[Prepared | BertdError]:
    """Takes texts and pairs of texts; raises as :func:`texts` does."""
    found: list[Prepared | BertdError] = []
    for place, one in enumerate(_several(given, field)):
        if isinstance(one, str):
            found.append(_message(pb.TextInput, {"text": one}, f"{field}[{place}]"))
        else:
            first, second = _pair(one, f"{field}[{place}]", "a string, or a pair of strings")
            parts = {"text": first, "text_pair": second}
            found.append(_message(pb.TextInput, parts, f"{field}[{place}]"))
    return found


def questions(given: Iterable[tuple[str, str]], field: str) -> list[Prepared | BertdError]:
    """Takes questions with their contexts; raises as :func:`texts` does."""
    found: list[Prepared | BertdError] = []
    for place, one in enumerate(_several(given, field)):
        question, context = _pair(one, f"{field}[{place}]", "a pair (question, context)")
        parts = {"question": question, "context": context}
        found.append(_message(pb.QuestionInput, parts, f"{field}[{place}]"))
    return found


def token_ids(given: Iterable[Sequence[int]], field: str) -> list[Prepared | BertdError]:
    """Takes sequences of token ids.

    Raises:
        ValueError: An id is negative or beyond 32 bits.
        TypeError: Something is no id.
    """
    found: list[Prepared | BertdError] = []
    for place, ids in enumerate(given):
        try:
            message = pb.TokenIds(ids=ids)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{field}[{place}] is no sequence of token ids, from 0 to 2**32 - 1: {error}"
            ) from error
        found.append((message, message.ByteSize()))
    return found


def strings(given: Iterable[str], field: str) -> list[str]:
    """Takes strings that every input of a call shares.

    Raises:
        TypeError: As :func:`texts`.
        InvalidArgument: One cannot be written as UTF-8.
    """
    found = _several(given, field)
    for place, text in enumerate(found):
        _check(text, f"{field}[{place}]")
        refused = _surrogate(text, f"{field}[{place}]")
        if refused is not None:
            raise refused
    return found


def set_fields(request: Message, values: Mapping[str, object]) -> None:
    """Writes options and the like into the fields of their names; ``None`` leaves one as it is.

    Raises:
        TypeError: A value is of another type than its field.
        ValueError: A value is none of those that there are.
        InvalidArgument: A string cannot be written as UTF-8.
    """
    fields = request.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if isinstance(value, list) and fields[name].is_repeated:
            getattr(request, name).extend(value)
        elif isinstance(value, Message):
            getattr(request, name).CopyFrom(value)
        elif value is not None:
            _set(request, fields[name], value)


def _set(request: Message, field: Any, value: object) -> None:
    name = field.name
    if field.enum_type is not None:
        numbers = _words(field.enum_type)
        if not isinstance(value, str) or value not in numbers:
            words = " or ".join(map(repr, numbers))
            raise ValueError(f"{name} is {value!r}: pass {words}")
        value = numbers[value]
    if isinstance(value, str) and (refused := _surrogate(value, name)):
        raise refused
    try:
        setattr(request, name, value)
    except (TypeError, ValueError) as error:
        wanted = _KINDS.get(field.cpp_type, str(error))
        raise type(error)(f"{name} is {value!r}: pass {wanted}") from error


def _words(enum: Any) -> dict[str, int]:
    """The values of an enum as options have them: without what all their names begin with."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {one.name.removeprefix(prefix).lower(): one.number for one in enum.values if one.number}


def _several(given: Iterable[Any], field: str) -> list[Any]:
    if isinstance(given, (str, bytes)):
        kind = type(given).__name__
        raise TypeError(f"{field} is a single {kind}: pass a list of strings, such as [text]")
    return list(given)


def _pair(one: Any, field: str, wanted: str) -> tuple[Any, Any]:
    if isinstance(one, (str, bytes)) or not isinstance(one, Sequence) or len(one) != 2:
        raise TypeError(f"{field} is {one!r}: pass {wanted}")
    return one[0], one[1]


def _text(text: object, field: str) -> Prepared | BertdError:
    _check(text, field)
    return _surrogate(str(text), field) or (text, len(str(text).encode()))


def _message(kind: type[Message], parts: dict[str, Any], field: str) -> Prepared | BertdError:
    for name, text in parts.items():
        _check(text, f"{field}.{name}")
        refused = _surrogate(text, f"{field}.{name}")
        if refused is not None:
            return refused
    message = kind(**parts)
    return message, message.ByteSize()


def _check(text: object, field: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{field} is a {type(text).__name__}: pass strings only")


def _surrogate(text: str, field: str) -> InvalidArgument | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        description = (
            f"character {error.start} is a lone surrogate, which UTF-8 cannot express: "
            "decode the text with its own encoding, or with errors='replace'"
        )
        return InvalidArgument(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{field}: {description}",
            (FieldViolation(field, description),),
        )
    return None
