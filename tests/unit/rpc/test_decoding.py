"""Large messages are decoded once there is memory for them."""

from __future__ import annotations

import asyncio

import pytest
from bertd.v1 import inference_pb2 as pb
from bertd_server.errors import InvalidInput, Overloaded
from bertd_server.rpc.interceptors.decoding import _Large
from bertd_server.scheduling.memory_budget import MemoryBudget


async def test_a_large_message_has_memory_while_it_is_decoded() -> None:
    """It waits for others, and is refused undecoded where too much waits already."""
    request = pb.EmbedRequest(texts=[f"{number} {'a' * 100_000}" for number in range(10)])
    large = _Large(pb.EmbedRequest, request.SerializeToString())
    memory = MemoryBudget(4 * len(large.data))
    assert await large.decoded(memory) == request
    assert memory.held == 0
    other = await memory.reserve(2 * len(large.data))
    waiting = asyncio.create_task(large.decoded(memory))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="the message would take about"):
        await large.decoded(memory)
    other.release()
    assert await waiting == request
    broken = _Large(pb.EmbedRequest, b"\xff" * 10)
    with pytest.raises(InvalidInput, match="is not a "):
        await broken.decoded(memory)
    assert memory.held == 0
