"""Bodies of requests: read in time, inflated and counted before anything is made of them.

::

    chunks ──seconds, bytes──> body ──gzip, deflate──> inflated, a piece at a time
                                 └──entries──> too many are refused before JSON is read

A body of 16 MiB may say eight million empty strings: read, they would take hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bertd_server.errors import InvalidInput
from bertd_server.http.failures import NO_ENCODING, TOO_LARGE, TOO_SLOW
from bertd_server.scheduling.memory_budget import MemoryBudget, Reservation
from bertd_server.system.turns import Turns, give_way

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

LEAST_BYTES = 65_536
"""Smaller bodies are read as they are."""

MOST_VALUES = 100_000
"""Strings, objects and lists of a body."""
MOST_NUMBERS = 250_000
"""All values, numbers too: a reader of JSON holds the interpreter over them for some 20 ms."""

_LARGE_BYTES = 262_144  # larger bodies have memory before they are read
_COPIES = 3  # as bytes, as values, and what is made of them until the call has memory of its own
_MOST_INFLATED = 1_032  # times what was sent: no deflate gives more
_BYTES_A_SECOND = 16_384  # at least; a slower client keeps its place from others
_LARGE_BYTES_A_SECOND = 262_144  # beyond: it keeps memory from others too
_PIECE_BYTES = 262_144  # that are inflated before others have their turn
_QUOTES_A_TURN = 1_000  # some tenths of a ms
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class ClientLeft(Exception):
    """The client has closed its connection: nobody waits for an answer."""


async def room(
    memory: MemoryBudget, headers: Mapping[str, str], most: int, deadline: float
) -> Reservation | None:
    """Memory for a body that may be large, until the call has its own; None for a small one.

    Args:
        memory: of requests in flight.
        headers: of the request.
        most: bytes that it may have.
        deadline: of the call, on the monotonic clock.

    Raises:
        RequestError: it is too large, or there is no room in time.
    """
    size = _declared(headers, most)
    if size <= _LARGE_BYTES:
        return None
    needs = memory.within(_COPIES * size)
    return await memory.reserve(needs, deadline=deadline, field="the body")


def _declared(headers: Mapping[str, str], most: int) -> int:
    """Bytes that a body may have, inflated, by what is said of it.

    Raises:
        InvalidInput: it is too large.
    """
    if "transfer-encoding" in headers:
        return most
    declared = headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    if size > most:
        raise _too_large(size, most)
    compressed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    return min(most, size * _MOST_INFLATED) if compressed else size


async def read(receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float) -> bytes:
    """The body of a request, as it was sent.

    Args:
        receive: gives its chunks.
        headers: of the request.
        most: bytes.
        seconds: that it may take to begin, and as many more as its size needs.

    Raises:
        InvalidInput: it is too large, or too slow.
        ClientLeft: it has not come whole.
    """
    rate = _BYTES_A_SECOND if _declared(headers, most) <= _LARGE_BYTES else _LARGE_BYTES_A_SECOND
    chunks, size, loop = [], 0, asyncio.get_running_loop()
    begin, more = loop.time(), True
    while more:
        try:
            async with asyncio.timeout_at(begin + seconds + size / rate):
                message = await receive()
        except TimeoutError:
            raise InvalidInput(
                f"the body was not there within {seconds:g} s and a second for each {rate} bytes "
                "of it: send it at once",
                reason=TOO_SLOW,
            ) from None
        if message["type"] != "http.request":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _too_large(size, most)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def discard(
    receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float
) -> bool:
    """Read what is left of a body that nobody wants, so that its client hears the answer.

    A connection that ends while its client still sends is reset, and the answer with it.

    Args:
        receive: gives its chunks.
        headers: of the request; a client that asks whether to send its body has not begun.
        most: bytes that are read.
        seconds: that this may take.

    Returns:
        whether nothing is left.
    """
    size, more = 0, "expect" not in headers
    if not more:
        return False
    try:
        async with asyncio.timeout(seconds):
            while more and size <= most:
                message = await receive()
                if message["type"] != "http.request":
                    return False
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return False
    return not more


async def inflated(body: bytes, headers: Mapping[str, str], most: int) -> bytes:
    """A body as its client has made it; `deflate` may lack zlib's head, as some send it.

    Args:
        body: that may be compressed.
        headers: of the request.
        most: bytes that it may then have.

    Raises:
        InvalidInput: it is too large, or encoded in a way that is not known.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in _WINDOWS:
        raise InvalidInput(
            f"header content-encoding is {encoding[:40]!r}: send the body as gzip, deflate, or as "
            "it is",
            reason=NO_ENCODING,
        )
    bits = _WINDOWS[encoding]
    if encoding == "deflate" and not _has_zlib_head(body):
        bits = -zlib.MAX_WBITS
    inflating, pieces, size, left = zlib.decompressobj(bits), [], 0, body
    try:
        while left and not inflating.eof:
            piece = inflating.decompress(left, _PIECE_BYTES)
            left = inflating.unconsumed_tail
            size += len(piece)
            if size > most:
                raise _too_large(size, most)
            pieces.append(piece)
            await give_way()
    except zlib.error as error:
        raise _not_encoded(encoding, str(error)) from None
    if not inflating.eof:
        raise _not_encoded(encoding, "it ends too early")
    return b"".join(pieces)


def _has_zlib_head(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _not_encoded(encoding: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"the body is not {encoding} ({why}): compress it whole, or leave content-encoding out",
        reason="undecodable",
    )


def _too_large(size: int, most: int) -> InvalidInput:
    return InvalidInput(
        f"the body has {size} bytes or more, at most {most} are taken: split it into several calls",
        reason=TOO_LARGE,
        limit=most,
    )


async def check_values(body: bytes) -> None:
    """Refuse JSON that says too many values, before any of them is made; a part in each turn.

    Bytes that are no JSON may pass.

    Raises:
        InvalidInput: there are too many.
    """
    if len(body) <= LEAST_BYTES:
        return
    turns, place, values, numbers, inside = Turns(_QUOTES_A_TURN), 0, 0, 0, False
    while place < len(body):
        quote = body.find(b'"', place)
        end = len(body) if quote < 0 else quote
        if inside:
            inside = _is_escaped(body, place, end)
        else:
            inside = quote >= 0
            values += inside
            for begin in range(place, end, _PIECE_BYTES):
                part = body[begin : min(end, begin + _PIECE_BYTES)]
                values += part.count(b"[") + part.count(b"{")
                numbers += part.count(b",")
        if values > MOST_VALUES:
            raise _too_many("strings, lists and objects", MOST_VALUES)
        if numbers > MOST_NUMBERS:
            raise _too_many("values", MOST_NUMBERS)
        place = end + 1
        if turns.over():
            await give_way()


def _is_escaped(body: bytes, begin: int, quote: int) -> bool:
    """Whether a quote belongs to its string, which goes on: an odd number of backslashes is before.

    What is before `begin` has been looked at.
    """
    before = body[begin:quote]
    return bool((len(before) - len(before.rstrip(b"\\"))) % 2)


def _too_many(what: str, most: int) -> InvalidInput:
    return InvalidInput(
        f"the body has more than {most} {what}, a call takes at most {most}: split it into "
        "several calls",
        reason="too_many",
        limit=most,
    )
