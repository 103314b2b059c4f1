"""Which waiting texts make the next batch, and where it runs. Pure: no clock, no lock, no I/O.

The scheduler decides *when*; :func:`form_batch` decides *which*, from what waits at that moment::

    waiting ──> gone: no longer wanted, or too late already
            ──> in order: passed over too often, priority, deadline, arrival
            ──> the first, and those after it while the batch gains and nobody in it becomes late
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bertd_server.cost import NOTHING, CostModel, Shape


class Waiting(Protocol):
    """A text that waits. Times are seconds on one monotonic clock."""

    @property
    def shape(self) -> Shape:
        """What it costs alone."""

    @property
    def priority(self) -> int:
        """Its class: lower ones go first."""

    @property
    def deadline(self) -> float:
        """When its answer is no longer wanted; infinity if never."""

    @property
    def turn(self) -> float:
        """When it arrived; later for a text of a large call, by the work of those before it."""

    @property
    def passed_over(self) -> int:
        """Batches that ran with a text in them whose turn came later."""


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Policy:
    """What batches may be like.

    Attributes:
        max_tokens: in a batch; a longer text still makes a batch of its own.
        max_sequences: in a batch.
        budget_seconds: predicted time after which a batch takes no more texts: the knee of the
            measured curve.
        max_passed_over: batches that may pass a text over before it goes first.
    """

    max_tokens: int
    max_sequences: int
    budget_seconds: float = math.inf
    max_passed_over: int = 16


@dataclass(frozen=True, slots=True)
class Costs:
    """What batches cost on a lane, and on the wide session, which takes all lanes at once."""

    lane: CostModel
    wide: CostModel | None = None


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lanes that are free, of all there are."""

    idle: int
    total: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[W]):
    """What becomes of the queue: `batch` and `late` leave it, `remaining` stays, in order.

    Attributes:
        batch: in the order in which they were chosen.
        late: cannot be answered before their deadline, even if they ran alone at once.
        remaining: the others.
        wide: the batch takes the wide session, and all lanes with it.
        seconds: predicted time of the batch.
    """

    batch: list[W]
    late: list[W]
    remaining: list[W]
    wide: bool = False
    seconds: float = 0.0


def order(text: Waiting, policy: Policy) -> tuple[bool, float, float, float]:
    """The key by which texts go: the least first."""
    if text.passed_over >= policy.max_passed_over:
        return (False, text.turn, 0.0, 0.0)
    return (True, text.priority, text.deadline, text.turn)


def form_batch(
    waiting: Sequence[W], policy: Policy, costs: Costs, lanes: Lanes, now: float
) -> Decision[W]:
    """Form the best batch of what waits.

    The first text in order always runs. Each next one joins unless the batch would then exceed a
    limit, make one of its texts late, or take longer than the batch and the text apart. Where a
    text does not fit, the batch is closed: none behind it overtakes it for being smaller.

    Where several lanes are idle, what waits is shared between them, unless the wide session would
    be done with all of it before they were.

    Args:
        waiting: texts, in any order.
        policy: limits.
        costs: predicts times.
        lanes: at least one is idle.
        now: on the clock of the texts' times.
    """
    fastest = costs.wide if costs.wide is not None and lanes.idle == lanes.total else costs.lane
    late = [text for text in waiting if text.deadline <= now + fastest.seconds(text.shape)]
    gone = {id(text) for text in late}
    ordered = sorted(
        (text for text in waiting if id(text) not in gone), key=lambda text: order(text, policy)
    )
    if not ordered:
        return Decision([], late, [])
    if _wide_is_best(ordered, policy, costs, lanes):
        assert costs.wide is not None  # noqa: S101 - for the type checker
        batch = _fill(ordered, policy, costs.wide, policy.budget_seconds, now)
        wide = True
    else:
        work = sum(costs.lane.share(text.shape) for text in ordered)
        budget = min(policy.budget_seconds, _even_share(work, costs.lane, lanes.idle))
        batch = _fill(ordered, policy, costs.lane, budget, now)
        wide = False
    model = costs.wide if wide and costs.wide is not None else costs.lane
    seconds = model.seconds(_total(batch))
    return Decision(batch, late, ordered[len(batch) :], wide, seconds)


def _total(texts: Sequence[Waiting]) -> Shape:
    total = NOTHING
    for text in texts:
        total += text.shape
    return total


def _even_share(work: float, model: CostModel, idle: int) -> float:
    """Predicted time of a batch that leaves as much to each other idle lane."""
    if idle == 1:
        return math.inf
    return work / idle + model.seconds(Shape(1, 1, 1))


def _wide_is_best(ordered: Sequence[W], policy: Policy, costs: Costs, lanes: Lanes) -> bool:
    """Whether one wide batch of all that waits is done before the lanes, sharing it, would be."""
    if costs.wide is None or lanes.idle < lanes.total or lanes.total < 2:
        return False
    everything = _total(ordered)
    if everything.tokens > policy.max_tokens and len(ordered) > 1:
        return False  # more than one batch: the lanes together do more a second
    longest = max((text.shape for text in ordered), key=costs.lane.seconds)
    work = sum(costs.lane.share(text.shape) for text in ordered)
    shared = max(
        costs.lane.seconds(longest), _even_share(work, costs.lane, min(lanes.idle, len(ordered)))
    )
    if len(ordered) == 1:
        shared = costs.lane.seconds(longest)
    return costs.wide.seconds(everything) < shared


def _fill(
    ordered: Sequence[W], policy: Policy, model: CostModel, budget: float, now: float
) -> list[W]:
    """The longest prefix that is worth running as one batch."""
    batch = [ordered[0]]
    shape = ordered[0].shape
    seconds = model.seconds(shape)
    deadline = ordered[0].deadline
    for text in ordered[1 : policy.max_sequences]:
        larger = shape + text.shape
        together = model.seconds(larger)
        deadline = min(deadline, text.deadline)
        if (
            larger.tokens > policy.max_tokens
            or together > budget
            or now + together > deadline
            or together > seconds + model.seconds(text.shape)
        ):
            break
        batch.append(text)
        shape, seconds = larger, together
    return batch
