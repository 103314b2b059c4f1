"""What has happened since the start: durations by stage, counts of outcomes. Plain numbers.

Written on the event loop; whoever reads from another thread may see a call half counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

_PER_OCTAVE = 4  # buckets between a value and its double: percentiles are right to 19 %
_LEAST = 2.0**-20  # about a microsecond; what is less lies in the first bucket
_BUCKETS = 40 * _PER_OCTAVE  # up to 2**20: a million tokens, or many hours
_BOUNDS = [*(_LEAST * 2 ** (place / _PER_OCTAVE) for place in range(_BUCKETS - 1)), math.inf]


class Histogram:
    """Values in buckets that grow in proportion.

    Attributes:
        count: how many values.
        total: their sum.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._counts = [0] * _BUCKETS

    def observe(self, value: float) -> None:
        """Count a value of at least 0."""
        self.count += 1
        self.total += value
        self._counts[bisect_left(_BOUNDS, value)] += 1

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Upper bounds in ascending order, the last infinite, and how many values lie below."""
        below = 0
        for bound, count in zip(_BOUNDS, self._counts, strict=True):
            below += count
            yield bound, below

    def copy(self) -> Histogram:
        """The same values; others that come later are not in it."""
        same = Histogram()
        same.count, same.total, same._counts = self.count, self.total, self._counts[:]
        return same

    def percentile(self, percent: float) -> float:
        """The upper bound of the bucket in which a percentile lies; 0 if there are no values."""
        if not self.count:
            return 0.0
        wanted = self.count * percent / 100
        return next(bound for bound, below in self.buckets() if below >= wanted)


_RECENT = 24  # batches that are kept to be looked at


@dataclass(frozen=True, slots=True)
class RecentBatch:
    """A batch that has run.

    Attributes:
        number: of the model's batches, from 1.
        lengths: tokens of each text, in the order of the queue.
        seconds: of the model's run.
        predicted: seconds, before it started.
        kind: lane, all threads (wide), or beside the lanes (short).
    """

    number: int
    lengths: tuple[int, ...]
    seconds: float
    predicted: float
    kind: Literal["lane", "wide", "short"]


@dataclass(slots=True)
class InFlight:
    """What is being answered.

    Attributes:
        calls: questions of callers; a message of a stream is one.
        texts: theirs.
    """

    calls: int = 0
    texts: int = 0


@dataclass(slots=True)
class Statistics:
    """Of one model.

    Attributes:
        tokenize: seconds of each call's tokenisation.
        queue: seconds from submission to the start of the batch, of each text that was computed.
        compute: seconds of each batch.
        slices: seconds of each slice of what follows the model's run, on the executor's thread.
        total: seconds of each call that was answered.
        batch_sequences: of each batch.
        batch_tokens: of each batch.
        cost_ratio: seconds that each batch took, its way to the lane and back included, over those
            that were predicted for it.
        in_flight: what is being answered now.
        answered: texts with an answer, cached ones included.
        refused: calls that were not taken, by reason: `call_characters`, `call_memory`,
            `call_tokens`, `deadline`, `draining`, `impossible`, `memory`, `no_lane`, `promises`,
            `queue_characters`, `queue_seconds`, `queue_tokens`.
        expired: texts that were taken and whose deadline then could not be kept.
        started_late: texts whose batch started after their deadline; there should be none.
        cancelled: texts whose call went away before they had an answer.
        failed: texts on which the engine failed.
        dropped: jobs of the executor whose call went away before they had ended.
        abandoned: texts that were taken and given up when the server stopped.
        deduplicated: texts that joined an equal one in flight.
        wide_batches: batches that took the wide session.
        short_batches: batches of short texts that ran beside the lanes.
        batch_failures: batches that failed, and were split if they could be.
        lane_deaths: lanes that had to be replaced.
        last_answer: when the last call was answered, in seconds since 1970; 0 if none was.
        recent: the last batches, the newest last; None while nobody looks.
    """

    tokenize: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    slices: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    batch_sequences: Histogram = field(default_factory=Histogram)
    batch_tokens: Histogram = field(default_factory=Histogram)
    cost_ratio: Histogram = field(default_factory=Histogram)
    in_flight: InFlight = field(default_factory=InFlight)
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    started_late: int = 0
    cancelled: int = 0
    failed: int = 0
    dropped: int = 0
    abandoned: int = 0
    deduplicated: int = 0
    wide_batches: int = 0
    short_batches: int = 0
    batch_failures: int = 0
    lane_deaths: int = 0
    last_answer: float = 0.0
    recent: deque[RecentBatch] | None = None

    def look(self) -> list[RecentBatch]:
        """The last batches; from the first look on they are kept."""
        if self.recent is None:
            self.recent = deque(maxlen=_RECENT)
        return list(self.recent)

    def copy(self) -> Statistics:
        """The same numbers, for another thread to look at."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        apart: dict[str, Any] = {
            name: value.copy()
            for name, value in held.items()
            if isinstance(value, Histogram | Counter)
        }
        return replace(self, **apart, in_flight=replace(self.in_flight))

    def counts(self) -> dict[str, int]:
        """What was counted, refusals by reason; no durations."""
        refused = {f"refused_{reason}": count for reason, count in sorted(self.refused.items())}
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {n: value for n, value in values.items() if isinstance(value, int)} | refused


@dataclass(frozen=True, slots=True)
class Gauges:
    """How things are at this moment.

    Attributes:
        waiting: texts in the queue.
        waiting_tokens: theirs.
        predicted_wait: seconds until a text of the lowest class that arrived now would start;
            infinite while no lane is alive.
        lanes_alive: lanes that can run batches.
        batches_running: those that do.
        cost_error: mean relative error of recent predictions.
        refits: how often the cost model was fitted again.
        budget_seconds: predicted time of the largest batch that is formed.
        cache_hits: look-ups that found a result.
        cache_misses: those that did not.
        cache_bytes: what the cached results take.
        waiting_characters: those that wait for the tokeniser, in calls that are too long for the
            event loop.
        waiting_jobs: calls that wait for a slice of the executor's thread.
    """

    waiting: int
    waiting_tokens: int
    predicted_wait: float
    lanes_alive: int
    batches_running: int
    cost_error: float
    refits: int
    budget_seconds: float
    cache_hits: int
    cache_misses: int
    cache_bytes: int
    waiting_characters: int = 0
    waiting_jobs: int = 0
