"""An RPC that is monitored: who asks, what it asked, how it ended. Nothing exists of it otherwise.

::

    rpc.interceptors.monitoring ──RpcRecord──> CURRENT ──> tasks.ask: model, texts, tokens
                                                       └─> rpc.status: the reason of an error
    RpcRecord ──at the end──> access log, span
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

REQUEST_ID = "x-request-id"  # metadata of the call, and of its answer

_LONGEST_ID = 128  # characters; a longer one, or one that is not plain, is not taken over
_PREFIX = secrets.token_hex(4)
_numbers = itertools.count(1)


class Stages(Protocol):
    """What a trace wants to know of one question to a model."""

    def completed(self, call: Any, batch: Any, result: Any) -> None:
        """A text of it was computed: its call in the scheduler, the batch, the lane's result."""

    def end(self, tokenize_ns: int, total_ns: int) -> None:
        """It has its answer; durations as in :class:`bertd_server.tasks.ask.Timings`."""


class RpcTrace(Protocol):
    """The span of an RPC."""

    @property
    def id(self) -> str:
        """The trace's id in hexadecimal; empty if the trace is not recorded."""

    def asking(self, model: str, version: str, texts: int) -> Stages | None:
        """A question begins; None if nobody records it."""

    def end(self, code: int, reason: str) -> None:
        """The RPC has ended."""


@dataclass(slots=True, eq=False)
class RpcRecord:
    """One RPC.

    Attributes:
        id: of the request, its caller's or one made here.
        rpc: `service/method`, or over HTTP the route.
        peer: who called, as gRPC writes it.
        trace: its span; None without tracing.
        keep_inputs: whether what it asks is kept for the log.
        model: that was asked last.
        texts: that were asked about, in all messages.
        tokens: that the model read of them.
        reason: of the error that ended it.
        inputs: kept ones.
        began: on `time.perf_counter`.
    """

    id: str
    rpc: str
    peer: str
    trace: RpcTrace | None = None
    keep_inputs: bool = False
    model: str = ""
    texts: int = 0
    tokens: int = 0
    reason: str = ""
    inputs: list[Any] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def asking(self, model: str, version: str, inputs: Sequence[Any]) -> Stages | None:
        """A model is asked; returns what records the stages, if anything does."""
        self.model = model
        self.texts += len(inputs)
        if self.keep_inputs:
            self.inputs.extend(inputs)
        return None if self.trace is None else self.trace.asking(model, version, len(inputs))


def protocol_of(rpc: str) -> str:
    """What a call came over: RPCs have the name of a service, calls over HTTP their route."""
    return "http" if rpc.startswith("/") else "grpc"


CURRENT: ContextVar[RpcRecord | None] = ContextVar("bertd_rpc", default=None)
"""The RPC that this code works for; None where nothing is monitored."""


@dataclass(slots=True)
class RpcCounts:
    """RPCs since the start, on the event loop.

    Attributes:
        ended: by `service/method`, or the route over HTTP, and status code.
        running: by `service/method` or route.
    """

    ended: Counter[tuple[str, int]] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)


def given_id(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The id that a caller gave its request; empty if there is none that can be written."""
    for key, value in metadata or ():
        if key == REQUEST_ID:
            plain = isinstance(value, str) and value.isascii() and value.isprintable()
            return str(value) if plain and 0 < len(value) <= _LONGEST_ID else ""
    return ""


def made_id() -> str:
    """An id that no other request of this process has, and hardly one of another."""
    return f"{_PREFIX}-{next(_numbers):x}"
