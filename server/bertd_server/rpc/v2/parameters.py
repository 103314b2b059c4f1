"""Parameters of requests: which there are, of what kind, and what they may be.

A parameter that is not known is refused: whoever sends one expects it to do something.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bertd_server.errors import InvalidInput
from bertd_server.scheduling.scheduler import BULK, INTERACTIVE
from bertd_server.tasks.ask import CallContext
from bertd_server.tasks.vectors import VectorFormat
from bertd_server.tokenization.reader import Fit

RequestParameters = Mapping[str, Any]

_CHOICES = {
    "int64_param": int,
    "uint64_param": int,
    "bool_param": bool,
    "string_param": str,
    "double_param": float,
}
_KINDS = {int: "an integer", bool: "a truth value", str: "a string"}
MOST_JSON = 500_000  # characters of a parameter, which are read in some ms
_FINAL = "triton_enable_empty_final_response"
# What says how tensors travel: SDKs of KServe and Triton send it over gRPC too.
_OF_TRANSPORT = frozenset({"binary_data", "binary_data_output", "binary_data_size", "headers"})
_CONTENT_TYPE = "content_type"
_CODECS = ("str", "np", "pd")  # of MLServer: they leave the elements as they are


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter.

    Attributes:
        kind: int, bool or str.
        meaning: in a few words.
        least: of an integer.
        choices: of a string; empty for any.
    """

    kind: type
    meaning: str
    least: int = 0
    choices: tuple[str, ...] = ()


WAITING = {
    "priority": Parameter(int, "0: as 1; 1: goes first; 2 and more: bulk work"),
    "timeout": Parameter(int, "microseconds until the answer is no longer wanted; 0: no limit"),
}
READING = {
    "long_text": Parameter(
        str, "what to do with a text that is too long", choices=("error", "truncate")
    ),
    "truncate": Parameter(bool, "the same as long_text = truncate"),
    "truncation_side": Parameter(str, "the end that is cut", choices=("right", "left")),
}
WINDOWS = READING | {
    "long_text": Parameter(
        str, "what to do with a text that is too long", choices=("error", "truncate", "window")
    ),
    "stride": Parameter(int, "tokens that neighbouring windows share"),
}


def options(
    given: Mapping[str, Any], known: Mapping[str, Parameter], *, stream: bool
) -> RequestParameters:
    """The parameters of a request, checked.

    Args:
        given: `InferParameter` by name.
        known: those of the task.
        stream: whether the request came on a stream.

    Raises:
        InvalidInput: one is unknown, or has a value that it cannot have.
    """
    found = {}
    for name in for_model(given, ""):
        choice = given[name].WhichOneof("parameter_choice")
        if stream and name == _FINAL:
            continue  # each response is the final one of its request, and says so
        if name not in known:
            raise InvalidInput(_unknown(name, known), field=f"parameters.{name}")
        found[name] = _value(name, choice and getattr(given[name], choice), choice, known[name])
    return found


def for_model(given: Mapping[str, Any], place: str) -> Iterator[str]:
    """Names of parameters that are none of the transport's, nor of a client's own codec.

    Args:
        given: `InferParameter` by name.
        place: of the request that has them; empty for the request itself.

    Raises:
        InvalidInput: a codec has made other elements than the model would read.
    """
    for name in sorted(given):
        if name == _CONTENT_TYPE and given[name].string_param not in _CODECS:
            raise InvalidInput(
                f"{place or 'the request'} has content_type {given[name].string_param[:40]!r}: "
                f"send elements as they are, with {', '.join(_CODECS)} or no content_type",
                field=place or f"parameters.{name}",
            )
        if name not in _OF_TRANSPORT and name != _CONTENT_TYPE:
            yield name


def caller(
    options: RequestParameters, remaining: float | None, answer_bytes: float = math.inf
) -> CallContext:
    """How long the caller waits from now on, how urgently, and for how large an answer.

    Args:
        options: of the request.
        remaining: seconds until the call's own deadline; None without one.
        answer_bytes: that the answer may have.
    """
    timeout = options.get("timeout", 0)
    return CallContext.within(
        min(math.inf if remaining is None else remaining, timeout / 1e6 if timeout else math.inf),
        BULK if options.get("priority", 0) > 1 else INTERACTIVE,
        answer_bytes,
        asyncio.current_task(),
    )


def fit(options: RequestParameters, *, second_only: bool = False) -> Fit:
    """What to do with long inputs.

    Args:
        options: of the request.
        second_only: whether of a pair the second text alone is cut.
    """
    policy = options.get("long_text")
    if options.get("truncate"):
        if policy not in (None, "truncate"):
            raise InvalidInput(
                f"truncate is true and long_text is {policy!r}: send one of them",
                field="parameters.truncate",
            )
        policy = "truncate"
    return Fit(
        policy or "error",
        options.get("truncation_side", "right"),
        options.get("stride", 0),
        second_only=second_only,
        remedy="long_text = truncate",
    )


def vector_format(options: RequestParameters) -> VectorFormat:
    """How many values of each vector, and as which numbers."""
    dimensions, dtype = options.get("dimensions"), options.get("output_dtype", "float32")
    if "ranges" not in options:
        return VectorFormat(dimensions, dtype)
    low, high = _ranges(options["ranges"])
    return VectorFormat(dimensions, dtype, low, high)


def json_strings(name: str, written: str) -> list[str]:
    """A parameter that is a JSON list of strings."""
    found = _json(name, written)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidInput(
            f"parameter {name} is {written[:50]!r}: send a JSON list of strings, as in "
            '["sport", "politics"]',
            field=f"parameters.{name}",
        )
    return found


def _ranges(written: str) -> tuple[list[float], list[float]]:
    """Lowest and highest values: of all dimensions, or of each."""
    found = _json("ranges", written)
    if isinstance(found, list) and len(found) == 2:
        low, high = (one if isinstance(one, list) else [one] for one in found)
        if all(isinstance(one, int | float) for one in (*low, *high)):
            with contextlib.suppress(OverflowError):
                return list(map(float, low)), list(map(float, high))
    raise InvalidInput(
        f"parameter ranges is {written[:50]!r}: send a JSON list of the lowest and the highest "
        "value, as in [-0.2, 0.2], or of a list of each, with a number for each dimension",
        field="parameters.ranges",
    )


def _json(name: str, written: str) -> Any:
    """What the JSON of a parameter says; None where it is none."""
    if len(written) > MOST_JSON:
        raise InvalidInput(
            f"parameter {name} has {len(written)} characters, at most {MOST_JSON} are taken: "
            "send fewer or shorter entries",
            field=f"parameters.{name}",
            reason="too_long",
            limit=MOST_JSON,
        )
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    there = f"the model takes {', '.join(sorted(known))}"
    if name.startswith("sequence_"):
        return (
            f"parameter {name!r} is not known: answers do not depend on earlier requests, so leave "
            f"out all of sequence_id, sequence_start and sequence_end; {there}"
        )
    if name.startswith("shared_memory"):
        return (
            f"parameter {name!r} is not known: tensors are sent in the request and in the "
            f"response, in raw or typed contents; {there}"
        )
    return f"parameter {name!r} is not known; {there}"


def _value(name: str, value: Any, choice: str | None, parameter: Parameter) -> Any:
    field = f"parameters.{name}"
    if choice is None or _CHOICES[choice] is not parameter.kind:
        raise InvalidInput(
            f"parameter {name} is {'empty' if choice is None else repr(value)}: send "
            f"{_KINDS[parameter.kind]}",
            field=field,
        )
    if parameter.kind is int and value < parameter.least:
        raise InvalidInput(
            f"parameter {name} is {value}: send {parameter.least} or more", field=field
        )
    if parameter.choices and value not in parameter.choices:
        raise InvalidInput(
            f"parameter {name} is {value!r}: send one of {', '.join(parameter.choices)}",
            field=field,
        )
    return value
