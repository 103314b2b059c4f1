"""Whether a new call is taken: a promise that it can be answered in time, or a refusal at once.

::

    what waits ──> Backlog: seconds by class and deadline ─┐
    what runs  ──> seconds that each lane still needs ─────┼──> refusal(): None, or the error
    the call   ──> Demand: its work, class and deadline ───┘         with the seconds to wait

Pure, like batching. Predictions are seconds of one lane; lanes fill like communicating vessels:
work goes to the one that is free first.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bertd_server.errors import DeadlineMissed, Overloaded

_SLOTS = 256  # deadlines are told apart to this part of a second
_CAUTION = 1.05  # a wait is taken to be this much longer than predicted
_RESERVE = 2.0  # mean errors, which the error of a batch seldom exceeds


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

    def add(
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


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be done before a new call.

    Attributes:
        backlog: what waits.
        busy: seconds that each lane still needs for what it runs; at least one lane.
        full_batch: predicted seconds of the largest batch that is formed.
        now: on the clock of the deadlines.
        error: mean relative error of recent predictions of a batch.
    """

    backlog: Backlog
    busy: Sequence[float]
    full_batch: float
    now: float
    error: float = 0.0

    @property
    def reserve(self) -> float:
        """Seconds that promises keep for errors: of one batch, since those of many cancel out."""
        return _RESERVE * self.error * self.full_batch


def wait(busy: Sequence[float], work: float) -> float:
    """Seconds until lanes have taken on all of `work` and one of them is free.

    Args:
        busy: seconds that each lane still needs for what it runs; at least one lane.
        work: lane seconds that go first.
    """
    levels = itertools.accumulate(sorted(busy))
    return min((work + filled) / lanes for lanes, filled in enumerate(levels, 1))


def refusal(demand: Demand, outlook: Outlook, bounds: Bounds) -> Overloaded | DeadlineMissed | None:
    """Why a call cannot be taken; None if it can. An empty backlog takes any call it has time for.

    Args:
        demand: the call.
        outlook: what is to be done before it.
        bounds: of the backlog.
    """
    left = demand.deadline - outlook.now
    if left <= demand.soonest:
        return DeadlineMissed(
            f"the deadline is in {_ms(left)} and a text of the call takes {_ms(demand.soonest)} "
            "even on an idle server: allow more time, or send a shorter text"
        )
    return (
        _too_much(demand, outlook, bounds)
        or _too_late(demand, outlook)
        or _breaks_a_promise(demand, outlook)
    )


def _too_much(demand: Demand, outlook: Outlook, bounds: Bounds) -> Overloaded | None:
    """The bounds of the backlog."""
    tokens = outlook.backlog.tokens(demand.priority)
    work = outlook.backlog.seconds(demand.priority)
    if not tokens:
        return None
    excess = tokens + demand.tokens - bounds.tokens
    if excess > 0:
        return Overloaded(
            f"{tokens} tokens are waiting and the limit is {bounds.tokens}: "
            "retry later with back-off, or send fewer texts a call",
            reason="queue_tokens",
            retry_after_seconds=wait(outlook.busy, work * min(1.0, excess / tokens)),
        )
    predicted = wait(outlook.busy, work)
    if predicted > bounds.seconds:
        return Overloaded(
            f"the predicted wait is {_ms(predicted)} and the limit is {_ms(bounds.seconds)}: "
            "retry later with back-off",
            reason="queue_seconds",
            retry_after_seconds=predicted - bounds.seconds,
        )
    return None


def _too_late(demand: Demand, outlook: Outlook) -> Overloaded | None:
    """Whether the last text of the call would miss its deadline."""
    left = demand.deadline - outlook.now
    ahead = outlook.backlog.seconds(demand.priority - 1)
    for deadline, work in outlook.backlog.promises(demand.priority):
        if deadline > demand.deadline:
            break
        ahead = work
    others = demand.seconds * (1 - 1 / demand.texts)  # its own texts before its last
    finish = max(
        _CAUTION * wait(outlook.busy, ahead + others) + demand.longest + outlook.reserve,
        _answered(outlook, ahead + demand.seconds),
    )
    if ahead + others + max(outlook.busy) <= 0:
        finish = demand.soonest  # nothing goes before it, and every lane is free
    if finish < left:
        return None
    return Overloaded(
        f"the answer would take {_ms(finish)} and the deadline is in {_ms(left)}: "
        "allow more time, or retry later",
        reason="deadline",
        retry_after_seconds=finish - left,
        in_vain=True,
    )


def _breaks_a_promise(demand: Demand, outlook: Outlook) -> Overloaded | None:
    """Whether a text that waits, with a later deadline, would miss it because of the call."""
    for deadline, work in outlook.backlog.promises(demand.priority):
        slack = deadline - outlook.now
        if deadline <= demand.deadline or math.isinf(slack):
            continue
        kept = _answered(outlook, work) <= slack + 1 / _SLOTS
        finish = _answered(outlook, work + demand.seconds)
        if kept and finish > slack:
            return Overloaded(
                "texts that were taken before it would miss their deadlines: retry later",
                reason="promises",
                retry_after_seconds=finish - slack,
                in_vain=True,
            )
    return None


def _answered(outlook: Outlook, work: float) -> float:
    """Seconds until the last of `work` is answered.

    The lanes share it, but a batch is run by one: its answers come later than if all lanes had
    worked on it, by the part that the others would have done.
    """
    alone = 1 - 1 / len(outlook.busy)
    batch = min(outlook.full_batch, work)
    return _CAUTION * wait(outlook.busy, work) + alone * batch + outlook.reserve


def _ms(seconds: float) -> str:
    return f"{1000 * max(0.0, seconds):,.0f} ms" if seconds > 0.1 else f"{1000 * seconds:.3g} ms"
