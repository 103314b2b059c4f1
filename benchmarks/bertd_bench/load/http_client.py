"""HTTP/1.1 for the load generator: ready bytes out, the body in, connections kept and reused.

As :mod:`bertd_bench.load.client` does it for gRPC: nothing is encoded or decoded while the clock
runs, so that a contestant behind HTTP does not pay for a client library in Python.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from bertd_bench.load.generator import RequestOutcome, Send, SendResult

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_REFUSALS = (429, 503)


def embeddings_request(text: str, model: str) -> bytes:
    """A whole request of the OpenAI-like interface that Infinity has; vectors come as base64."""
    fields = {"model": model, "input": [text], "encoding_format": "base64"}
    body = json.dumps(fields).encode()
    head = (
        "POST /embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def embedding_of(answer: bytes) -> NDArray[np.float32]:
    """The vector of an answer to one text: float32 `[dimensions]`.

    Raises:
        ValueError: the answer has none.
    """
    try:
        value = json.loads(answer)["data"][0]["embedding"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no embedding in {answer[:100]!r}") from error
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float32)
    return np.asarray(value, np.float32)


@asynccontextmanager
async def sender(
    address: str, requests: Sequence[bytes], *, keep: bool = False
) -> AsyncIterator[Send]:
    """Sends ready requests, in turn, each on a connection that nobody else uses meanwhile."""
    host, _, port = address.rpartition(":")
    idle: list[_Connection] = []

    async def send(number: int, within: float) -> SendResult:
        if within <= 0:
            return SendResult(RequestOutcome.EXPIRED)
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(None if math.isinf(within) else within):
                connection = await _connection(idle, host, int(port))
                connection[1].write(requests[number % len(requests)])
                status, body = await _answer(connection[0])
        except TimeoutError:
            _close(connection)
            return SendResult(RequestOutcome.EXPIRED)
        except (OSError, EOFError, ValueError) as error:
            _close(connection)
            return SendResult(RequestOutcome.FAILED, str(error))
        idle.append(connection)
        if status != 200:
            refused = status in _REFUSALS
            outcome = RequestOutcome.REFUSED if refused else RequestOutcome.FAILED
            return SendResult(outcome, str(status))
        return SendResult(RequestOutcome.ANSWERED, answer=body if keep else b"")

    try:
        yield send
    finally:
        for connection in idle:
            _close(connection)


async def _connection(idle: list[_Connection], host: str, port: int) -> _Connection:
    """One that nobody uses; a server closes those that were idle for some seconds."""
    while idle:
        reader, writer = idle.pop()
        if not reader.at_eof():
            return reader, writer
        writer.close()
    return await asyncio.open_connection(host, port)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body; answers have a length here.

    Raises:
        EOFError: the connection ended.
        ValueError: there is no length.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return status, await reader.readexactly(int(value))
    raise ValueError(f"an answer without content-length: {head[:200]}")


def _close(connection: _Connection | None) -> None:
    if connection is not None:
        connection[1].close()
