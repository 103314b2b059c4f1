"""Whether a new call is taken: a promise that it can be answered in time, or a refusal at once.

::

    what waits ──> Backlog: seconds by class and deadline ─┐
    what runs  ──> seconds that each lane still needs ─────┼──> refusal(): None, or the error
    the call   ──> Demand: its work, class and deadline ───┘         with the seconds to wait

Pure, like batching. Predictions are seconds of one lane; lanes fill like communicating vessels:
work goes to the one that is free first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bertd_server.errors import DeadlineMissed, Overloaded

_SLOTS = 16  # deadlines are told apart to this part of a second
_CAUTION = 1.15  # a wait is taken to be this much longer than predicted


@dataclass(frozen=True, slots=True)
class Place:
    """What one text adds to the backlog, and where."""

    priority: int
    slot: float
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait ahead of a call: in its class and those that go before it."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call wants.

    Attributes:
        priority: its class.
        deadline: of all its texts.
        tokens: of all its texts.
        seconds: what its texts add to full batches, in all.
        longest: seconds of its largest text, alone on a lane.
        soonest: the same where it is done first, with every lane idle.
        texts: how many.
    """

    priority: int
    deadline: float
    tokens: int
    seconds: float
    longest: float
    soonest: float
    texts: int = 1


class _Class:
    """What waits in one priority class."""

    def __init__(self) -> None:
        self.texts = 0
        self.tokens = 0
        self.seconds: defaultdict[float, float] = defaultdict(float)  # by slot
        self.counts: defaultdict[float, int] = defaultdict(int)


class Backlog:
    """Predicted work of what waits. The slots are as many as fit in `horizon`, and one beyond."""

    def __init__(self, horizon: float) -> None:
        """Keep deadlines apart up to `horizon` seconds from now; nothing waits longer."""
        self._horizon = horizon
        self._classes: dict[int, _Class] = {}

    def add(  # noqa: PLR0913 - one text's place
        self, priority: int, deadline: float, now: float, *, seconds: float, tokens: int
    ) -> Place:
        """Count a text; give back what this returns when it leaves."""
        slot = math.floor(deadline * _SLOTS) if deadline < now + self._horizon else math.inf
        kind = self._classes.setdefault(priority, _Class())
        kind.texts += 1
        kind.tokens += tokens
        kind.seconds[slot] += seconds
        kind.counts[slot] += 1
        return Place(priority, slot, seconds, tokens)

    def remove(self, place: Place) -> None:
        """Uncount a text."""
        kind = self._classes[place.priority]
        kind.texts -= 1
        kind.tokens -= place.tokens
        kind.seconds[place.slot] -= place.seconds
        kind.counts[place.slot] -= 1
        if not kind.counts[place.slot]:  # with it goes what rounding has left
            del kind.counts[place.slot], kind.seconds[place.slot]
        if not kind.texts:
            del self._classes[place.priority]

    @property
    def texts(self) -> int:
        """How many wait."""
        return sum(kind.texts for kind in self._classes.values())

    def tokens(self, priority: float = math.inf) -> int:
        """Tokens of what waits in a class and those before it."""
        return sum(kind.tokens for p, kind in self._classes.items() if p <= priority)

    def seconds(self, priority: float = math.inf) -> float:
        """Lane seconds of what waits in a class and those before it."""
        return sum(sum(kind.seconds.values()) for p, kind in self._classes.items() if p <= priority)

    def promises(self, priority: int) -> list[tuple[float, float]]:
        """For each deadline in a class: when it is, and the lane seconds that go before it passes.

        In ascending order; deadlines are rounded down to their slot.
        """
        work = self.seconds(priority - 1)
        found = []
        kind = self._classes.get(priority)
        for slot, seconds in sorted(kind.seconds.items()) if kind else ():
            work += seconds
            found.append((slot / _SLOTS, work))
        return found


def wait(busy: Sequence[float], work: float) -> float:
    """Seconds until lanes have taken on all of `work` and one of them is free.

    Args:
        busy: seconds that each lane still needs for what it runs; at least one lane.
        work: lane seconds that go first.
    """
    free = sorted(busy)
    filled = 0.0
    for lanes, level in enumerate(free, 1):
        filled += level
        if lanes == len(free) or (work + filled) / lanes <= free[lanes]:
            return (work + filled) / lanes
    raise AssertionError("the last lane always returns")


def refusal(  # noqa: PLR0913, PLR0917 - the whole state of the question
    demand: Demand,
    backlog: Backlog,
    busy: Sequence[float],
    bounds: Bounds,
    full_batch: float,
    now: float,
) -> Overloaded | DeadlineMissed | None:
    """Why a call cannot be taken; None if it can.

    Args:
        demand: the call.
        backlog: what waits.
        busy: seconds that each lane still needs for what it runs.
        bounds: of the backlog. An empty one takes any call.
        full_batch: predicted seconds of the largest batch that is formed.
        now: on the clock of the deadlines.
    """
    left = demand.deadline - now
    if left <= demand.soonest:
        return DeadlineMissed(
            f"the deadline is in {_ms(left)} and a text of the call takes {_ms(demand.soonest)} "
            "even on an idle server: allow more time, or send a shorter text"
        )
    return _too_long(demand, backlog, busy, bounds) or _too_late(
        demand, backlog, busy, full_batch, now
    )


def _too_long(
    demand: Demand, backlog: Backlog, busy: Sequence[float], bounds: Bounds
) -> Overloaded | None:
    tokens, work = backlog.tokens(demand.priority), backlog.seconds(demand.priority)
    if not tokens:
        return None
    excess = tokens + demand.tokens - bounds.tokens
    if excess > 0:
        return Overloaded(
            f"{tokens} tokens are waiting and the limit is {bounds.tokens}: "
            "retry later with back-off, or send fewer texts a call",
            reason="queue_tokens",
            retry_after_seconds=wait(busy, work * min(1.0, excess / tokens)),
        )
    predicted = wait(busy, work)
    if predicted > bounds.seconds:
        return Overloaded(
            f"the wait is {predicted:.1f} s and the limit is {bounds.seconds:g} s: "
            "retry later with back-off",
            reason="queue_seconds",
            retry_after_seconds=predicted - bounds.seconds,
        )
    return None


def _too_late(
    demand: Demand, backlog: Backlog, busy: Sequence[float], full_batch: float, now: float
) -> Overloaded | None:
    """Whether the call would miss its deadline, or make another miss one that it can meet."""
    left = demand.deadline - now
    promises = backlog.promises(demand.priority)
    ahead = backlog.seconds(demand.priority - 1)
    for deadline, work in promises:
        if deadline > demand.deadline:
            break
        ahead = work
    batch = max(demand.longest, min(full_batch, ahead + demand.seconds))
    others = demand.seconds * (1 - 1 / demand.texts)  # its own texts before its last
    finish = _CAUTION * wait(busy, ahead + others) + batch
    if finish >= left:
        return Overloaded(
            f"the answer would take {_ms(finish)} and the deadline is in {_ms(left)}: "
            "allow more time, or retry later",
            reason="deadline",
            retry_after_seconds=finish - left,
            in_vain=True,
        )
    for deadline, work in promises:
        slack = deadline - now
        if deadline > demand.deadline and math.isfinite(slack):
            late = _CAUTION * wait(busy, work + demand.seconds)
            if late > slack >= _CAUTION * wait(busy, work):
                return Overloaded(
                    "texts that were taken before would miss their deadlines: retry later",
                    reason="promises",
                    retry_after_seconds=late - slack,
                    in_vain=True,
                )
    return None


def _ms(seconds: float) -> str:
    return f"{1000 * max(0.0, seconds):.3g} ms"
