"""Long work on a request is done a part at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bertd.v1 import inference_pb2 as pb
from bertd_server.rpc.v1 import requests


def test_many_short_sequences_of_ids_give_others_their_turn() -> None:
    """As one long one does: a million ids in sequences of 3,900 held the event loop for 50 ms."""
    model: Any = SimpleNamespace(manifest=SimpleNamespace(vocab_size=30), written_bytes=len)
    given = [pb.TokenIds(ids=[7] * 3_900)] * 40
    reading, turns = requests.token_ids(given, model, 1e9), 0
    try:
        while True:
            reading.send(None)
            turns += 1
    except StopIteration as ended:
        found = ended.value
    assert turns >= 3_900 * 40 // 25_000
    assert found == [[7] * 3_900] * 40
