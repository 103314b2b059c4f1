"""What requests of tei.v1 say, as plain values; what they must not say is refused by field."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from bertd.tei.v1 import tei_pb2 as pb
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput
from bertd_server.rpc.checks import known_value
from bertd_server.tasks.ask import CallContext
from bertd_server.tokenization.reader import Fit
from bertd_server.tokenization.truncation import CutSide

_SIDES: dict[int, CutSide] = {
    pb.TRUNCATION_DIRECTION_RIGHT: "right",
    pb.TRUNCATION_DIRECTION_LEFT: "left",
}


def check_text(text: str, field: str = "inputs") -> None:
    """Refuse an empty text. One of spaces is read: the protocol's own server does so."""
    if not text:
        raise InvalidInput(f"{field} is empty: send a text", field=field)


def fit(request: Any) -> Fit:
    """What to do with long texts."""
    side = known_value(
        "truncation_direction", request.truncation_direction, _SIDES, pb.TruncationDirection
    )
    return Fit(
        "truncate" if request.truncate else "error", side, blank=True, remedy="truncate = true"
    )


def caller(context: Context[Any, Any], answer_bytes: float = math.inf) -> CallContext:
    """How long the caller waits, and for how large an answer."""
    remaining = seconds_left(context)
    within = math.inf if remaining is None else remaining
    return CallContext.within(within, answer_bytes=answer_bytes, task=asyncio.current_task())


def seconds_left(context: Context[Any, Any]) -> float | None:
    """Seconds until the deadline, if there is one; the stubs say there always is."""
    return context.time_remaining()
