"""Ids of tei.v1's Decode are read by the executor."""

from __future__ import annotations

from typing import Any

from bertd.tei.v1 import tei_pb2
from bertd_server.rpc.tei.tokenize import _written
from bertd_server.scheduling.executor import LONG
from bertd_server.tokenization.budget import answer_budget


def test_many_ids_leave_the_event_loop_before_the_first_is_read() -> None:
    """A stream has a hundred such requests in work, which all begin in one turn of the loop."""
    unread: Any = None
    steps = _written(unread, tei_pb2.DecodeRequest(ids=[3] * 10_000), answer_budget(1e6))
    assert next(steps) is LONG
    steps.close()
