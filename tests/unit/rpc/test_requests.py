"""Long work on a request is done a part at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from bertd.v1 import inference_pb2 as pb
from bertd_server.rpc.v1 import requests


async def test_many_short_sequences_of_ids_give_others_their_turn() -> None:
    """As one long one does: a million ids in sequences of 3,900 held the event loop for 50 ms."""
    model: Any = SimpleNamespace(manifest=SimpleNamespace(vocab_size=30), written_bytes=len)
    given = [pb.TokenIds(ids=[7] * 3_900)] * 40
    reading, turns = asyncio.ensure_future(requests.token_ids(given, model, 1e9)), 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    found = reading.result()
    assert turns >= 3_900 * 40 // 25_000
    assert found == [[7] * 3_900] * 40
