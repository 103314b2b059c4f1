"""Ways to spoil a request of the Open Inference Protocol; none of them leaves it valid."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from robustness.wellformed import Target

_SHAPES: Sequence[list[int]] = (
    *([], [0], [-1], [0, 1], [1, -1], [-1, -1], [2, 1], [1, 2], [257, 1], [1, 1, 1]),
    *([2**62, 2**62], [2**63 - 1], [-(2**63), -1], [1] * 1_000 + [2]),
)
_DATATYPES = ("", "bytes", "BYTES ", "INT64", "FP32", "BOOL", "FP16", "\0", "X" * 1_000)
_NAMES = ("", "TEXT", "texts", "\0", "input_id", "🙂", "x" * 5_000)
_NUMBERS = (math.nan, math.inf, -math.inf, -1, 2**62)
_BAD_TEXTS = (b"\xed\xa0\x80", b"a\xff", b"\xc0\x80", b"\xf5\x80\x80\x80")
_BAD_LABELS = ('["\\ud800", "b"]', "[1, 2]", "{}", "[" * 5_000, "", '["a", "a"]', "[]", "NaN")


def spoil(rng: random.Random, request: Any, target: Target) -> None:
    """Make a good request one that cannot be answered."""
    rng.choice(_WAYS)(rng, request, target)


def _shape(rng: random.Random, request: Any, target: Target) -> None:
    del target
    shape = rng.choice(_SHAPES)
    if shape == [1, 1, 1]:
        shape = [*shape, 0]
    rng.choice(request.inputs).shape[:] = shape


def _lengths(rng: random.Random, request: Any, target: Target) -> None:
    """Lengths of raw strings that lie, or bytes that are too few or too many."""
    del target
    place = rng.randrange(len(request.raw_input_contents))
    data = request.raw_input_contents[place]
    request.raw_input_contents[place] = rng.choice(
        (
            data[: rng.randrange(1, len(data))],
            data + rng.randbytes(rng.randrange(1, 9)),
            struct.pack("<I", rng.choice((2**32 - 1, 2**31, len(data)))) + data[4:],
            struct.pack("<I", 0) + data[4:],
            b"\0",
        )
    )


def _raw_count(rng: random.Random, request: Any, target: Target) -> None:
    del target
    request.raw_input_contents.extend([b""] * rng.choice((1, 2, 1_000)))


def _datatype(rng: random.Random, request: Any, target: Target) -> None:
    del target
    rng.choice(request.inputs).datatype = rng.choice(_DATATYPES)


def _name(rng: random.Random, request: Any, target: Target) -> None:
    del target
    rng.choice(request.inputs).name = rng.choice(_NAMES)


def _twice(rng: random.Random, request: Any, target: Target) -> None:
    del rng, target
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _both(rng: random.Random, request: Any, target: Target) -> None:
    del target
    rng.choice(request.inputs).contents.bytes_contents.append(b"a")


def _typed(rng: random.Random, request: Any, target: Target) -> None:
    """Typed contents of another kind, or too many, or too few."""
    del target
    del request.raw_input_contents[:]
    for one in request.inputs:
        contents = one.contents
        what = rng.randrange(4)
        if what == 0:
            contents.fp32_contents.extend([math.nan, math.inf])
        elif what == 1:
            contents.int64_contents.append(2**63 - 1)
        elif what == 2:
            contents.bytes_contents.extend([b"a"] * rng.choice((0, 2, 300)))
        else:
            contents.bytes_contents.append(rng.choice(_BAD_TEXTS))


def _no_unicode(rng: random.Random, request: Any, target: Target) -> None:
    del target
    text = rng.choice(_BAD_TEXTS)
    request.raw_input_contents[-1] = struct.pack("<I", len(text)) + text


def _parameter(rng: random.Random, request: Any, target: Target) -> None:
    """A parameter that is unknown, empty, or of a kind that no parameter of that name has."""
    del target
    name = rng.choice(("priority", "timeout", "truncate", "long_text", "threshold", "", "\0"))
    if rng.random() < 0.5:
        request.parameters[name].double_param = rng.choice(_NUMBERS)
    else:
        request.parameters[name].int64_param = -rng.randrange(1, 2**62)
    if rng.random() < 0.2:
        request.parameters[name].Clear()


def _labels(rng: random.Random, request: Any, target: Target) -> None:
    del target  # of another task than zero-shot it takes no labels at all
    request.parameters["labels"].string_param = rng.choice(_BAD_LABELS)


def _output(rng: random.Random, request: Any, target: Target) -> None:
    del target
    for _ in range(rng.choice((1, 2, 5_000))):
        request.outputs.add(name=rng.choice(_NAMES))


def _ids(rng: random.Random, request: Any, target: Target) -> None:
    """Token ids outside the vocabulary, or a mask that is none."""
    del request.inputs[:], request.raw_input_contents[:]
    ids = [2, 3, rng.choice((-1, target.vocabulary, 2**31, 2**63 - 1, -(2**63)))]
    masked = rng.random() < 0.3
    request.inputs.add(name="input_ids", datatype="INT64", shape=[1, 3])
    request.inputs[0].contents.int64_contents.extend([2, 3, 4] if masked else ids)
    if masked:
        mask = rng.choice(([0, 0, 0], [1, 0, 1], [2, 1, 1], [-1, 1, 1], [1, 1]))
        request.inputs.add(name="attention_mask", datatype="INT64", shape=[1, 3])
        request.inputs[1].contents.int64_contents.extend(mask)


def _version(rng: random.Random, request: Any, target: Target) -> None:
    del target
    request.model_version = rng.choice(("-1", "99999999999999999999", "\0", "latest", "x" * 9_000))


_WAYS: Sequence[Callable[[random.Random, Any, Target], None]] = (
    *(_shape, _shape, _lengths, _lengths, _raw_count, _datatype, _name, _twice, _both, _typed),
    *(_no_unicode, _parameter, _parameter, _labels, _output, _ids, _ids, _version),
)
