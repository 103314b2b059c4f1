"""Which waiting texts make the next batch, and where it runs. Pure: no clock, no lock, no I/O.

The scheduler decides *when*; :func:`form_batch` decides *which*, from what waits at that moment::

    waiting ──> late: could not be answered in time even if they ran alone at once
            ──> in order: priority, deadline, virtual arrival; that alone when one was passed over
                too often
            ──> the first, and those after it while the batch gains and nobody in it becomes late
    short ones, beside long batches ──> form_short_batch: for the thread beside the lanes
    a lone one, while all rests     ──> form_alone: for the event loop's own thread
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from bertd_server.scheduling.classes import NEUTRAL, size_class
from bertd_server.scheduling.cost import NOTHING, CostModel, Shape


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
    def virtual_arrival(self) -> float:
        """When it arrived; later for a text of a large call, by the work of those before it."""

    @property
    def probe(self) -> bool:
        """It runs though it is predicted to be late: no batch has confirmed the prediction."""

    passed_over: int
    """Batches that ran, while it had arrived before all others, with a later one in them."""


W = TypeVar("W", bound=Waiting)

_LITTLE = 1.5  # times as long as on the other session may a try take
_DOUBTFUL = 16.0  # the same, where no such batch has run there for a while: a bad start may say so
_BEYOND_KNEE = 1.5
_LONGER = 4.0  # times as long must what runs last, for a short batch to run beside it
# Of its time must lanes have rested before a text that the event loop computes: it so computes two
# thirds of the time at most, and calls that overlap have lanes.
_RESTED = 0.5

SHORT_TOKENS = 128
"""Of a short batch, at most: what so few need, the reserve of the memory limit has."""

urgency = attrgetter("priority", "deadline", "virtual_arrival")
"""The key of the ordinary order of texts: the least goes first."""

_by_arrival = attrgetter("virtual_arrival")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """What batches may be like.

    Attributes:
        max_tokens: in a batch; a longer text still makes a batch of its own.
        max_sequences: in a batch.
        budget_seconds: predicted time after which a batch takes no more texts: the knee of the
            measured curve.
        max_passed_over: batches that may pass over the text that arrived first, virtually; the
            next one goes by virtual arrival alone. No text so waits longer than
            `max_passed_over + 1` batches for each one that the texts before it fill, while
            priorities and deadlines keep all but that share of the lanes.
        margin: seconds by which a batch must end before the deadlines of its texts. Without one, a
            batch that fills the time to the nearest deadline is late every other time.
    """

    max_tokens: int
    max_sequences: int
    budget_seconds: float = math.inf
    max_passed_over: int = 16
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What batches cost on a lane, and on the wide session, which takes all lanes at once.

    Attributes:
        lane: predicts batches of a lane.
        wide: of the wide session; None where there is none, or not all lanes are free.
        lane_factors: what batches that had all lanes for themselves took on one of them, over what
            is predicted, by :func:`.classes.size_class`; 1 where nothing is known.
        wide_factors: the same, on the wide session.
        due: classes of which a session was not tried for long, and whether it is the wide one.
    """

    lane: CostModel
    wide: CostModel | None = None
    lane_factors: Mapping[int, float] = field(default_factory=dict)
    wide_factors: Mapping[int, float] = field(default_factory=dict)
    due: Mapping[int, bool] = field(default_factory=dict)

    def on_lane(self, shape: Shape) -> float:
        """Seconds that texts take on a lane, with every lane idle."""
        return self.lane.seconds(shape) * self.lane_factors.get(size_class(shape), NEUTRAL)

    def on_wide(self, shape: Shape) -> float:
        """Seconds that texts take on the wide session; infinite where there is none."""
        if self.wide is None:
            return math.inf
        return self.wide.seconds(shape) * self.wide_factors.get(size_class(shape), NEUTRAL)

    def soonest(self, shape: Shape) -> float:
        """Seconds that texts take where they are done first, with every lane idle."""
        return min(self.on_lane(shape), self.on_wide(shape))


@dataclass(frozen=True, slots=True)
class FreeLanes:
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
        shape: of the batch.
    """

    batch: list[W]
    late: list[W]
    remaining: list[W]
    wide: bool = False
    seconds: float = 0.0
    shape: Shape = NOTHING


def form_batch(
    waiting: Sequence[W], policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float
) -> Decision[W]:
    """Form the best batch of what waits.

    The first text in order always runs. Each next one joins unless the batch would then exceed a
    limit, make one of its texts late, or take longer than the batch and the text apart. Where a
    text does not fit, the batch is closed: none behind it overtakes it for being smaller.

    Where several lanes are idle, what waits is shared between them, unless the wide session would
    be done with all of it before they were, or alone meets the first text's deadline.

    Args:
        waiting: texts, in any order.
        policy: limits.
        costs: predicts times.
        lanes: at least one is idle.
        now: on the clock of the texts' times.
    """
    if lanes.idle < lanes.total:
        costs = Costs(costs.lane)  # the wide session needs every lane
    late: list[W] = []
    ordered: list[W] = []
    overdue = False
    for text in waiting:
        in_time = text.deadline == math.inf or now + costs.soonest(text.shape) < text.deadline
        if in_time or (text.probe and now < text.deadline):
            ordered.append(text)
            overdue = overdue or text.passed_over >= policy.max_passed_over
        else:
            late.append(text)
    if not ordered:
        return Decision([], late, [])
    ordered.sort(key=_by_arrival if overdue else urgency)
    model = _fastest(ordered, policy, costs, lanes, now)
    enough = math.inf
    if model is costs.lane and lanes.idle > 1:
        enough = sum(model.share(text.shape) for text in ordered) / lanes.idle
    count, shape, seconds = _fill(ordered, policy, model, enough, now)
    return Decision(ordered[:count], late, ordered[count:], model is costs.wide, seconds, shape)


def _fastest(
    ordered: Sequence[W], policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float
) -> CostModel:
    """The wide session if it is done with all that waits before the lanes, sharing it, would be.

    One batch that could go to either is decided by live batches of its class, and goes to the
    slower session where that is due, costs little and makes nothing late.
    """
    lane, wide = costs.lane, costs.wide
    if wide is None:
        return lane
    first = ordered[0]
    if len(ordered) == 1:
        return wide if _goes_wide(first, policy, costs, now)[0] else lane
    if now + costs.on_lane(first.shape) >= first.deadline > now + costs.on_wide(first.shape):
        return wide  # no lane is fast enough for the first
    everything = NOTHING
    for text in ordered:
        everything += text.shape
    if everything.tokens > policy.max_tokens or everything.sequences > policy.max_sequences:
        return lane  # more than one batch: the lanes together do more a second
    longest = max(costs.on_lane(text.shape) for text in ordered)
    work = sum(lane.share(text.shape) for text in ordered)
    shared = max(longest, work / min(lanes.total, len(ordered)))
    return wide if costs.on_wide(everything) < shared else lane


def _goes_wide(text: Waiting, policy: BatchPolicy, costs: Costs, now: float) -> tuple[bool, float]:
    """Whether a text that has all lanes for itself goes to the wide session, and its seconds there.

    It goes to the slower one where that is due, costs little and makes it not late. What no batch
    has confirmed may be wrong by far: grids of a start beside busy programs had the wide session
    six times slower than it was, and texts stayed on a lane for as long as calls came.
    """
    narrow, wide = costs.on_lane(text.shape), costs.on_wide(text.shape)
    if now + narrow >= text.deadline > now + wide:
        return True, wide  # no lane is fast enough
    most, least = max(narrow, wide), min(narrow, wide)
    is_slower = wide >= narrow
    kind = size_class(text.shape)
    confirmed = kind in (costs.wide_factors if is_slower else costs.lane_factors)
    in_time = now + most + policy.margin < text.deadline
    costs_little = most < (_LITTLE if confirmed else _DOUBTFUL) * least
    if costs_little and in_time and costs.due.get(kind) is is_slower:
        return is_slower, most
    return not is_slower, least


def _fill(
    ordered: Sequence[W], policy: BatchPolicy, model: CostModel, enough: float, now: float
) -> tuple[int, Shape, float]:
    """The longest prefix that is worth running as one batch; it ends with `enough` work.

    Returns:
        how many texts, their shape, and the predicted seconds.
    """
    shape, deadline = ordered[0].shape, ordered[0].deadline
    count, seconds, work = 1, model.seconds(shape), model.share(shape)
    for text in ordered[1 : policy.max_sequences]:
        larger = shape + text.shape
        together = model.seconds(larger)
        deadline = min(deadline, text.deadline)
        if (
            work >= enough
            or larger.tokens > policy.max_tokens
            or together > policy.budget_seconds
            or now + together + policy.margin >= deadline
            or together > seconds + model.seconds(text.shape)
        ):
            break
        count, shape, seconds = count + 1, larger, together
        work += model.share(text.shape)
    return count, shape, seconds


def form_alone(  # noqa: PLR0913 - by keyword
    text: W, policy: BatchPolicy, costs: Costs, now: float, *, rested: float, most: float
) -> Decision[W] | None:
    """Form the batch of a lone text that the event loop computes itself; None if lanes are to.

    That spares two changes of thread. Nothing else is done meanwhile, so that it must be short, and
    rare beside the time in which calls are waited for.

    Args:
        text: nothing else runs or waits.
        policy: limits.
        costs: predicts times.
        now: on the clock of the text's times.
        rested: seconds since the last batch ended.
        most: seconds that the event loop may compute.
    """
    wide, seconds = _goes_wide(text, policy, costs, now)
    if seconds > most or rested < _RESTED * seconds or now + seconds >= text.deadline:
        return None
    predicted = (costs.wide if wide and costs.wide else costs.lane).seconds(text.shape)
    return Decision([text], [], [], wide, predicted, text.shape)


def form_short_batch(
    waiting: Sequence[W], policy: BatchPolicy, costs: Costs, lasting: float, now: float
) -> Decision[W] | None:
    """Form a batch that runs beside the lanes, on a thread that does not step back.

    It takes all short texts that wait, or none: where they are many, lanes serve more of them a
    second. What runs must last much longer than they do, so that a wait is what they are spared.

    Args:
        waiting: short texts of one class, in any order.
        policy: limits.
        costs: predicts times.
        lasting: seconds that the longest of what runs still needs; infinite where it has no end
            that is known, and the wide session would have to share its cores with it.
        now: on the clock of the texts' times.
    """
    shape = NOTHING
    for text in waiting:
        shape += text.shape
    if not waiting or not fits_beside(shape, policy, costs, lasting):
        return None
    seconds = costs.lane.seconds(shape)
    in_time = [text for text in waiting if now + seconds < text.deadline]
    if not in_time:
        return None
    if len(in_time) < len(waiting):
        shape = Shape.of(text.shape.tokens for text in in_time)
        seconds = costs.lane.seconds(shape)
    return Decision(in_time, [], [], seconds=seconds, shape=shape)


def fits_beside(shape: Shape, policy: BatchPolicy, costs: Costs, lasting: float) -> bool:
    """Whether a batch of this shape may run beside the lanes.

    Args:
        shape: of it.
        policy: limits.
        costs: predicts times.
        lasting: as in :func:`form_short_batch`.
    """
    seconds = costs.lane.seconds(shape)
    if lasting == math.inf and seconds > _LITTLE * costs.on_wide(shape):
        return False
    return (
        shape.sequences <= policy.max_sequences
        and shape.tokens <= min(policy.max_tokens, SHORT_TOKENS)
        and _LONGER * seconds <= lasting
    )


def budget(model: CostModel, knee: Shape) -> float:
    """Seconds for `BatchPolicy.budget_seconds`: somewhat beyond the knee.

    A batch is closed by the first text that does not fit, so that it ends below its budget by
    half a text or more. A budget at the knee itself makes batches that stay short of it: in
    simulation it lost 2 to 3 % of goodput under overload.

    Args:
        model: of a lane.
        knee: of that model.
    """
    return _BEYOND_KNEE * model.seconds(knee)
