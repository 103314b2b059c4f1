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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bertd_server.errors import DeadlineMissed, Overloaded
from bertd_server.scheduling.request_queue import Backlog

_CAUTION = 1.05  # a wait is taken to be this much longer than predicted
_WRONG = 32.0  # times too long may predictions of a bad minute be
_RESERVE = 4.0  # mean overruns, which the overrun of a batch seldom exceeds


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


def might_do(demand: Demand, now: float) -> bool:
    """Whether a call that is predicted to be late would be in time if the prediction were wrong.

    By a factor of `_WRONG`, which a machine that others had for themselves may be faster.
    """
    needed = max(demand.soonest, demand.seconds)
    return demand.deadline - now > needed / _WRONG


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
            f"{_due(left)} and a text of the call takes {_ms(demand.soonest)} "
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
        f"the answer would take {_ms(finish)} and {_due(left)}: allow more time, or retry later",
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


def _due(left: float) -> str:
    return (
        f"the deadline passed {_ms(-left)} ago" if left < 0 else f"the deadline is in {_ms(left)}"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * max(0.0, seconds):,.0f} ms" if seconds > 0.1 else f"{1000 * seconds:.3g} ms"
