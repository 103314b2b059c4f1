"""Malformed requests, each with the statuses that are right for it.

::

    good request ──one way to spoil it, by seed and number──> Attack: bytes, and what may be said

Where bytes were changed at random, protobuf itself tells whether they still are a message: if not,
INVALID_ARGUMENT alone is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bertd_server.config.settings import Settings
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode as Code
from robustness import odd_tensors, odd_values
from robustness.wellformed import INFER, STREAM_INFER, Method, Target, message_for

REFUSED = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.FAILED_PRECONDITION,
        Code.UNIMPLEMENTED,
        Code.OUT_OF_RANGE,
        Code.PERMISSION_DENIED,  # calls that change the server are off
    }
)
ANSWERED = REFUSED | {Code.OK}
INVALID = frozenset({Code.INVALID_ARGUMENT})
_OTHER_TASK = INVALID | {Code.FAILED_PRECONDITION}  # said before a stream is read
_MOST_BYTES = int(Settings.model_fields["max_message_bytes"].default)
_LONGEST_DEADLINE = 0.01  # seconds
_LONGEST_STAY = 0.02
_PLACEHOLDER = "\ue000"
_NOT_UTF8 = (b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xff\xfe\xfd", b"\xc0\x80a", b"\xe2\x82\x20")


@dataclass(frozen=True, slots=True)
class Attack:
    """A malformed request.

    Attributes:
        kind: of malformation.
        path: of the RPC.
        messages: as sent, one after the other.
        allowed: statuses that are right for it.
        must_fail: a stream that answers errors in its responses may end with OK, but the last of
            its responses has to hold an error.
        timeout: seconds; None for no deadline of its own.
        leaves: seconds after which the caller leaves; None if it stays.
    """

    kind: str
    path: str
    messages: Sequence[bytes]
    allowed: frozenset[Code]
    must_fail: bool = False
    timeout: float | None = None
    leaves: float | None = None


class Attacks:
    """Malformed requests by number; the same seed and number give the same request."""

    def __init__(self, methods: Sequence[Method], target: Target, seed: int) -> None:
        """Spoil what is good for a target."""
        self._methods = methods
        self._target = target
        self._seed = seed
        self._goods = {one.path: message_for(one, target) for one in methods}

    def __getitem__(self, number: int) -> Attack:
        """The request of that number, of a random kind for a random RPC."""
        rng = random.Random(f"{self._seed}/{number}")
        (make,) = rng.choices(_KINDS, _WEIGHTS)
        method = rng.choice(self._methods)
        if make is _tensor and method.path not in _INFERS:
            method = rng.choice([one for one in self._methods if one.path in _INFERS])
        elif make is _broken_stream and not method.streams:
            method = rng.choice([one for one in self._methods if one.streams])
        good = method.request()
        good.CopyFrom(self._goods[method.path])
        return make(rng, method, good, self._target)


def _of_bytes(kind: str, method: Method, data: bytes) -> Attack:
    """What may be said to bytes that may be a message by chance."""
    try:
        method.request.FromString(data)
    except DecodeError:
        return Attack(kind, method.path, [data], _unreadable(method))
    return Attack(kind, method.path, [data], ANSWERED)


def _of_message(kind: str, method: Method, message: Message) -> Attack:
    """What may be said to a message of any values, and of any size."""
    data = message.SerializeToString()
    allowed = _too_large(method) if len(data) > _MOST_BYTES else ANSWERED
    return Attack(kind, method.path, [data], allowed)


def _bytes(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del good, target
    return _of_bytes("random bytes", method, rng.randbytes(rng.choice((1, 2, 5, 20, 100, 2_000))))


def _mutated(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    data = bytearray(good.SerializeToString())
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) + 1)
        what = rng.randrange(4)
        if what == 0:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif what == 1:
            del data[place : place + rng.randrange(1, 9)]
        elif what == 2:
            data[place : place + 1] = rng.randbytes(1)
        else:
            data = data[:place]
    return _of_bytes("mutated", method, bytes(data))


def _values(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(odd_values.places(good))
        if places:
            odd_values.spoil(rng, *rng.choice(places))
    return _of_message("odd values", method, good)


def _enums(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    places = [
        (message, field)
        for message, field in odd_values.places(good)
        if field.type == FieldDescriptor.TYPE_ENUM and not field.is_repeated
    ]
    if not places:
        return _values(rng, method, good, target)
    message, field = rng.choice(places)
    setattr(message, field.name, rng.choice((-1, 77, 2**31 - 1, -(2**31))))
    data = good.SerializeToString()
    return Attack("unknown enum", method.path, [data], *_fails(method))


def _counts(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    places = [(message, field) for message, field in odd_values.places(good) if field.is_repeated]
    if not places:
        return _values(rng, method, good, target)
    message, field = rng.choice(places)
    odd_values.repeat(message, field, rng.choice(odd_values.COUNTS))
    return _of_message("odd count", method, good)


def _surrogate(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    places = [
        (message, field)
        for message, field in odd_values.places(good)
        if field.type == FieldDescriptor.TYPE_STRING
    ]
    if not places:
        return _bytes(rng, method, good, target)
    message, field = rng.choice(places)
    text = f"a{_PLACEHOLDER}b"
    if field.is_repeated:
        getattr(message, field.name).append(text)
    else:
        setattr(message, field.name, text)
    data = good.SerializeToString().replace(_PLACEHOLDER.encode(), rng.choice(_NOT_UTF8))
    return Attack("no UTF-8", method.path, [data], _unreadable(method))


def _empty(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del good, target
    messages = [b""] * (rng.randrange(3) if method.streams else 1)
    return Attack("empty", method.path, messages, ANSWERED)


def _unknown(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    service, _, name = method.path.rpartition("/")
    path = rng.choice((f"{service}/{name}2", f"{service}x/{name}", "/", "/a", f"//{name}"))
    return Attack("unknown RPC", path, [good.SerializeToString()], frozenset({Code.UNIMPLEMENTED}))


def _broken_stream(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    messages = [good.SerializeToString()] * rng.randrange(1, 12)
    if rng.random() < 0.25:
        allowed = ANSWERED | {Code.CANCELLED}
        return Attack("stream left", method.path, messages, allowed, leaves=_leaves(rng))
    messages.insert(rng.randrange(1, len(messages) + 1), b"\x0a\xff\xff")
    # A model of another task refuses the good messages before.
    return Attack("stream breaks", method.path, messages, REFUSED)


def _deadline(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    return Attack(
        "tiny deadline",
        method.path,
        [good.SerializeToString()],
        # CANCELLED where the server's clock is first: gRPC then resets the stream.
        ANSWERED | {Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.RESOURCE_EXHAUSTED},
        timeout=rng.uniform(0.0, _LONGEST_DEADLINE),
    )


def _cancel(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del target
    allowed = ANSWERED | {Code.CANCELLED}
    return Attack(
        "cancelled", method.path, [good.SerializeToString()], allowed, leaves=_leaves(rng)
    )


def _huge(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    del rng, good, target
    return Attack("too large", method.path, [bytes(_MOST_BYTES + 1)], _too_large(method))


def _tensor(rng: random.Random, method: Method, good: Message, target: Target) -> Attack:
    odd_tensors.spoil(rng, good, target)
    return Attack("wrong tensor", method.path, [good.SerializeToString()], *_fails(method))


def _leaves(rng: random.Random) -> float:
    return rng.choice((0.0, rng.uniform(0.0, _LONGEST_STAY)))


def _too_large(method: Method) -> frozenset[Code]:
    """What may be said to more bytes than a server takes by default."""
    said_before = {Code.FAILED_PRECONDITION} if method.streams else set()
    return frozenset({Code.RESOURCE_EXHAUSTED}) | said_before


def _unreadable(method: Method) -> frozenset[Code]:
    """What may be said to bytes that are no message."""
    return _OTHER_TASK if method.streams else INVALID


def _fails(method: Method) -> tuple[frozenset[Code], bool]:
    """What may be said to a request that cannot be answered, whatever the model is."""
    return (REFUSED | {Code.OK}, True) if method.in_band else (REFUSED, False)


_KINDS: Sequence[Callable[[random.Random, Method, Any, Target], Attack]] = (
    *(_bytes, _mutated, _values, _enums, _counts, _surrogate, _empty, _unknown),
    *(_broken_stream, _deadline, _cancel, _huge, _tensor),
)
_WEIGHTS = (12, 16, 16, 4, 6, 12, 3, 3, 5, 4, 4, 0.02, 15)
_INFERS = (INFER, STREAM_INFER)
