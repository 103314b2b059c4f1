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
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from bertd_server.errors import DeadlineMissed, Overloaded

_FINEST = -8  # deadlines are told apart to 2**-8 s
_PER_OCTAVE = 6  # or, further away, to 2**-6 of what is left until then, or better
_CAUTION = 1.05  # a wait is taken to be this much longer than predicted
_RESERVE = 4.0  # mean overruns, which the overrun of a batch seldom exceeds

Slot = tuple[float, float]
"""A stretch of time: deadlines from its begin until before its end are taken for one."""

_NEVER: Slot = (math.inf, math.inf)


class Place(NamedTuple):
    """What one text adds to the backlog, and where."""

    priority: int
    slot: Slot
    turn: float
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
        self.seconds: defaultdict[Slot, float] = defaultdict(float)
        self.counts: defaultdict[Slot, int] = defaultdict(int)
        self.turns: list[tuple[float, float]] = []  # and seconds, without a deadline, to come yet
        self.turned = 0.0  # seconds of those whose turn has come

    def come(self, now: float) -> float:
        """Seconds of the texts without a deadline whose turn has come."""
        due = bisect_right(self.turns, (now, math.inf))
        self.turned += sum(seconds for _, seconds in self.turns[:due])
        del self.turns[:due]
        return self.turned

    def leave(self, turn: float, seconds: float) -> None:
        """Take out a text without a deadline."""
        place = bisect_left(self.turns, (turn, seconds))
        if self.turns[place : place + 1] == [(turn, seconds)]:
            del self.turns[place]
        else:
            self.turned -= seconds


class Backlog:
    """Predicted work of what waits. A few hundred slots at most, however many deadlines."""

    def __init__(self, horizon: float) -> None:
        """Keep deadlines apart up to `horizon` seconds from now; nothing waits longer."""
        self._horizon = horizon
        self._classes: dict[int, _Class] = {}

    def reach(self, horizon: float) -> None:
        """Keep deadlines of texts that come from now on apart up to another `horizon`."""
        self._horizon = horizon

    def add(  # noqa: PLR0913 - what a text is, by keyword
        self,
        priority: int,
        deadline: float,
        now: float,
        *,
        seconds: float,
        tokens: int,
        turn: float = -math.inf,
    ) -> Place:
        """Count a text; give back what this returns when it leaves.

        Args:
            priority: its class.
            deadline: on the same clock as `now`.
            now: the present.
            seconds: predicted, of one lane.
            tokens: that it has.
            turn: when it comes before others that have no deadline either.
        """
        slot = _slot(deadline, now) if deadline < now + self._horizon else _NEVER
        kind = self._classes.setdefault(priority, _Class())
        kind.texts += 1
        kind.tokens += tokens
        kind.seconds[slot] += seconds
        kind.counts[slot] += 1
        if slot == _NEVER:
            insort(kind.turns, (turn, seconds))
        return Place(priority, slot, turn, seconds, tokens)

    def remove(self, place: Place) -> None:
        """Uncount a text."""
        kind = self._classes[place.priority]
        kind.texts -= 1
        kind.tokens -= place.tokens
        kind.seconds[place.slot] -= place.seconds
        kind.counts[place.slot] -= 1
        if place.slot == _NEVER:
            kind.leave(place.turn, place.seconds)
        if not kind.counts[place.slot]:  # with it goes what rounding has left
            del kind.counts[place.slot], kind.seconds[place.slot]
            if place.slot == _NEVER:
                kind.turned = 0.0
        if not kind.texts:
            del self._classes[place.priority]

    def tokens(self, priority: float = math.inf) -> int:
        """Tokens of what waits in a class and those before it."""
        return sum(kind.tokens for p, kind in self._classes.items() if p <= priority)

    def seconds(self, priority: float = math.inf) -> float:
        """Lane seconds of what waits in a class and those before it."""
        return sum(sum(kind.seconds.values()) for p, kind in self._classes.items() if p <= priority)

    def before(self, priority: int, deadline: float, now: float) -> float:
        """Lane seconds of what goes before a text that comes now.

        The rest of a large call does not: without a deadline, its texts have their turns one
        after the other.
        """
        work = self.seconds(priority - 1)
        kind = self._classes.get(priority)
        if kind is None:
            return work
        work += sum(
            seconds
            for slot, seconds in kind.seconds.items()
            if slot[0] <= deadline and slot != _NEVER
        )
        return work + kind.come(now) if math.isinf(deadline) else work

    def promises(self, priority: int) -> list[tuple[Slot, float]]:
        """For each slot of deadlines in a class, in ascending order, the lane seconds until then.

        Those count that go before the slot has passed.
        """
        work = self.seconds(priority - 1)
        kind = self._classes.get(priority)
        found = []
        for slot, seconds in sorted(kind.seconds.items()) if kind else ():
            work += seconds
            found.append((slot, work))
        return found


def _slot(deadline: float, now: float) -> Slot:
    """The later a deadline, the wider its slot: so there are few."""
    _, octave = math.frexp(max(deadline - now, 2.0**_FINEST))
    width = 2.0 ** max(_FINEST, octave - 1 - _PER_OCTAVE)
    begin = math.floor(deadline / width) * width
    return begin, begin + width


@dataclass(frozen=True)
class Outlook:
    """What is to be done before a new call.

    Attributes:
        backlog: what waits.
        busy: seconds that each lane still needs for what it runs; at least one lane.
        full_batch: predicted seconds of the largest batch that is formed.
        now: on the clock of the deadlines.
        overrun: seconds by which recent batches took longer than predicted, on average.
        rivals: of each other model that waits for the same lanes, its lane seconds, and its share
            of the lanes over this model's.
    """

    backlog: Backlog
    busy: Sequence[float]
    full_batch: float
    now: float
    overrun: float = 0.0
    rivals: Sequence[tuple[float, float]] = ()

    @cached_property
    def _filled(self) -> list[tuple[int, float]]:
        """Lanes, those that are free first, and the seconds that so many still need together."""
        return list(enumerate(itertools.accumulate(sorted(self.busy)), 1))

    @cached_property
    def reserve(self) -> float:
        """Seconds that promises keep for overruns: of one batch, since of many they even out."""
        return _RESERVE * self.overrun

    def wait(self, work: float) -> float:
        """Seconds until lanes have taken on all of `work`, and one of them is free.

        While it waits, each rival gets its share of the lanes, as long as it has work for them.
        """
        work += sum(min(seconds, work * ratio) for seconds, ratio in self.rivals)
        return min((work + filled) / lanes for lanes, filled in self._filled)

    def answered(self, work: float) -> float:
        """Seconds until the last of `work` is answered, with caution.

        The lanes share it, but a batch is run by one: its answers come later than if all lanes
        had worked on it, by the part that the others would have done.
        """
        alone = 1 - 1 / len(self.busy)
        batch = min(self.full_batch, work)
        return _CAUTION * self.wait(work) + alone * batch + self.reserve


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
    before = outlook.backlog.before(demand.priority, demand.deadline, outlook.now)
    return (
        _too_much(demand, outlook, bounds, before)
        or _too_late(demand, outlook, before)
        or _breaks_a_promise(demand, outlook)
    )


def _too_much(demand: Demand, outlook: Outlook, bounds: Bounds, before: float) -> Overloaded | None:
    """The bounds of the backlog, `before` of which goes before the call."""
    tokens = outlook.backlog.tokens(demand.priority)
    if not tokens:
        return None
    excess = tokens + demand.tokens - bounds.tokens
    if excess > 0:
        alone = demand.tokens > bounds.tokens  # only an idle server takes it
        work = outlook.backlog.seconds(demand.priority)
        return Overloaded(
            f"{tokens} tokens are waiting and the limit is {bounds.tokens}: "
            "retry later with back-off, or send fewer texts a call",
            reason="call_tokens" if alone else "queue_tokens",
            retry_after_seconds=outlook.wait(work * min(1.0, excess / tokens)),
        )
    predicted = outlook.wait(before)
    if predicted > bounds.seconds:
        return Overloaded(
            f"the predicted wait is {_ms(predicted)} and the limit is {_ms(bounds.seconds)}: "
            "retry later with back-off",
            reason="queue_seconds",
            retry_after_seconds=predicted - bounds.seconds,
        )
    return None


def _too_late(demand: Demand, outlook: Outlook, before: float) -> Overloaded | None:
    """Whether the last text of the call, after `before`, would miss its deadline."""
    if math.isinf(demand.deadline):
        return None
    left = demand.deadline - outlook.now
    others = demand.seconds * (1 - 1 / demand.texts)  # its own texts before its last
    finish = max(
        _CAUTION * outlook.wait(before + others) + demand.longest + outlook.reserve,
        outlook.answered(before + demand.seconds),
    )
    if before + others + max(outlook.busy) <= 0:
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
    for (begin, end), work in outlook.backlog.promises(demand.priority):
        if begin <= demand.deadline or math.isinf(begin):
            continue
        finish = outlook.answered(work + demand.seconds)
        slack = begin - outlook.now
        if finish > slack and outlook.answered(work) <= end - outlook.now:
            return Overloaded(
                "texts that were taken before it would miss their deadlines: retry later",
                reason="promises",
                retry_after_seconds=finish - slack,
                in_vain=True,
            )
    return None


def _ms(seconds: float) -> str:
    return f"{1000 * max(0.0, seconds):,.0f} ms" if seconds > 0.1 else f"{1000 * seconds:.3g} ms"
