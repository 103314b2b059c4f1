"""Ids of tei.v1's Decode are read by the executor, a part at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bertd.tei.v1 import tei_pb2
from bertd_server.rpc.tei.tokenize import _written
from bertd_server.scheduling.executor import LONG
from bertd_server.tokenization.budget import answer_budget


def test_many_ids_leave_the_event_loop_before_the_first_is_read() -> None:
    """A stream has a hundred such requests in work, which all begin in one turn of the loop."""
    read: list[int] = []

    def written_bytes(part: list[int]) -> int:
        read.append(len(part))
        return len(part)

    model: Any = SimpleNamespace(
        manifest=SimpleNamespace(vocab_size=10),
        written_bytes=written_bytes,
        tokenizer=SimpleNamespace(decode_batch=lambda ids, **_: [str(len(ids[0]))]),
    )
    steps = _written(model, tei_pb2.DecodeRequest(ids=[3] * 10_000), answer_budget(1e6))
    assert next(steps) is LONG
    assert read == []
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            assert ended.value.text == "10000"
            break
        assert sum(read) <= 10_000
    assert len(read) > 2
