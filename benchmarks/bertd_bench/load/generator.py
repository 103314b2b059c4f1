"""Closed and open loops over anything that answers.

::

    closed   n workers, each asks again as soon as it is answered      finds the capacity
    open     requests come when the plan says, however slow answers are  finds latency, goodput

An open loop counts latency from the moment at which a request was due, not from when it was sent:
a generator that falls behind its plan would otherwise leave out the wait that it should have seen
("coordinated omission").
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Clock = Callable[[], float]

_RAMP = 0.25  # share of a closed loop's time that is not counted
_CLUMP = 0.001  # seconds within which answers belong to one batch
_SPAN = 0.5  # share of the counted time that the ends must span, to tell a rate


class RequestOutcome(enum.Enum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"  # the system said so
    EXPIRED = "expired"  # no word from the system before the deadline
    FAILED = "failed"  # anything else


class SendResult(NamedTuple):
    """What a sender reports of one request.

    Attributes:
        outcome: what became of it.
        detail: of an error.
        answer: the bytes that came, where they are kept.
    """

    outcome: RequestOutcome
    detail: str = ""
    answer: bytes = b""


# Takes the number of the request, and seconds until its answer is no longer wanted.
Send = Callable[[int, float], Awaitable[SendResult]]


@dataclass(frozen=True, slots=True)
class Closed:
    """So many workers, for so many seconds."""

    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Requests that are due at these moments, in seconds from the start, in order.

    Attributes:
        due: when each request should be sent.
        within: seconds from then until its answer is no longer wanted.
    """

    due: tuple[float, ...]
    within: tuple[float, ...]


class TimedRequest(NamedTuple):
    """One request; seconds from the start of the load."""

    request: int
    due: float
    sent: float
    done: float
    within: float
    reply: SendResult

    @property
    def latency(self) -> float:
        """Seconds from when it was due."""
        return self.done - self.due

    @property
    def good(self) -> bool:
        """Answered, and in time."""
        return self.reply.outcome is RequestOutcome.ANSWERED and self.latency <= self.within


def poisson(rate: float, seconds: float, deadlines: Sequence[float], rng: random.Random) -> Open:
    """Independent arrivals: `rate` a second on average, each with one of the deadlines."""
    due = []
    at = rng.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += rng.expovariate(rate)
    return Open(tuple(due), tuple(rng.choice(deadlines) for _ in due))


async def run(
    load: Closed | Open, send: Send, clock: Clock = time.perf_counter
) -> list[TimedRequest]:
    """Put a load on a system; gives one record per request, in the order of their ends."""
    if isinstance(load, Closed):
        return await _closed(load, send, clock)
    return await _open(load, send, clock)


async def _closed(load: Closed, send: Send, clock: Clock) -> list[TimedRequest]:
    records: list[TimedRequest] = []
    numbers = itertools.count()
    start = clock()

    async def work() -> None:
        while (sent := clock() - start) < load.seconds:
            number = next(numbers)
            reply = await send(number, math.inf)
            records.append(TimedRequest(number, sent, sent, clock() - start, math.inf, reply))

    await asyncio.gather(*(work() for _ in range(load.workers)))
    return records


async def _open(load: Open, send: Send, clock: Clock) -> list[TimedRequest]:
    records: list[TimedRequest] = []
    asked: set[asyncio.Task[None]] = set()
    start = clock()

    async def ask(number: int, due: float, within: float) -> None:
        sent = clock() - start
        reply = await send(number, due + within - sent)
        records.append(TimedRequest(number, due, sent, clock() - start, within, reply))

    for number, (due, within) in enumerate(zip(load.due, load.within, strict=True)):
        while (rest := due - (clock() - start)) > 0:  # noqa: ASYNC110 - no event: what comes is a moment
            await asyncio.sleep(rest)
        task = asyncio.ensure_future(ask(number, due, within))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    return records


def rate(records: Iterable[TimedRequest], begin: float, end: float) -> float:
    """Good answers a second between two moments."""
    return sum(record.good and begin <= record.done < end for record in records) / (end - begin)


def steady_rate(records: Sequence[TimedRequest], load: Closed) -> float:
    """Good answers a second of a closed loop, once it has settled.

    Answers come in clumps, a batch at a time. The time from one clump to a later one holds whole
    batches, where the time between two moments would cut some. Where a batch takes about as long as
    the load, its answers may come spread over a few milliseconds; then the whole time counts.
    """
    ends = sorted(r.done for r in records if r.good and r.done >= _RAMP * load.seconds)
    ends = [end for end in ends if end <= load.seconds]
    first = sum(end - ends[0] < _CLUMP for end in ends)
    span = ends[-1] - ends[0] if ends else 0.0
    if first == len(ends) or span < _SPAN * (1 - _RAMP) * load.seconds:
        return rate(records, 0.0, max(record.done for record in records))
    return (len(ends) - first) / span
