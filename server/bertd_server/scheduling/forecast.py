"""What batches will cost, as known now: a model of the lanes, one of the wide session, the policy.

::

    measurements of the start ──> trackers ──> Costs, BatchPolicy ──> queue, admission
    batches that ran ────────────────^           (the budget is the knee of the newest model)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from bertd_server.scheduling.batching import BatchPolicy, Costs, budget
from bertd_server.scheduling.classes import Rows, SizeClasses, size_class
from bertd_server.scheduling.cost import CostTracker, Measurement, Shape

_STALE_SECONDS = 10.0  # without a batch; then live batches say little about the next one
_TYPICAL_TOKENS = 32  # of a text, before any was seen
_TOGETHER = 8  # lone batches
_ALIKE = 0.75  # of what was expected: a batch further off is learnt from at once
_NOTED_SECONDS = 1.0  # may what was noted wait, while calls come
_MARGIN = 2.0  # of the mean overrun: an error that falls either way is twice as large
_MEMORY = 0.99  # of the mean length, from one batch to the next


class StartMeasurements(Protocol):
    """Batches that ran at the start, on this machine."""

    @property
    def lane(self) -> Sequence[Measurement]:
        """On a lane."""

    @property
    def wide(self) -> Sequence[Measurement]:
        """On the wide session; none where there is no such session."""


class Forecast:
    """Predictions that follow the machine. Use it on one event loop.

    Attributes:
        costs: the newest models.
        policy: limits of batches; its budget and margin are those of the newest model of a lane.
        full: shape of a batch that is worth no more waiting.
    """

    def __init__(self, measured: StartMeasurements, policy: BatchPolicy) -> None:
        """Fit models to what was measured; the policy's budget and margin are computed here."""
        self._lane = CostTracker(measured.lane)
        self._wide = CostTracker(measured.wide) if measured.wide else None
        self._trackers = [self._lane, *([self._wide] if self._wide else [])]
        self._length = float(_TYPICAL_TOKENS)
        self._last = dict.fromkeys(self._trackers, -math.inf)
        self._classes = {tracker: SizeClasses() for tracker in self._trackers}
        self._turns = Rows()
        self._noted: list[tuple[Shape, float, float, bool, float]] = []  # arguments of observe
        self._fresh = -math.inf  # until then no tracker and no class can be stale
        self._seen: dict[int, float] = {}  # when a class last had a batch, or a probe
        self.policy = policy
        self.costs = Costs(self._lane.model)
        self._renew()

    @property
    def error(self) -> float:
        """Mean relative error of recent predictions on the lanes."""
        return self._lane.error

    @property
    def overrun(self) -> float:
        """Seconds by which recent batches took longer than predicted, where it is more."""
        return max(tracker.overrun for tracker in self._trackers)

    @property
    def refits(self) -> int:
        """How often live batches have changed a model."""
        return sum(tracker.refits for tracker in self._trackers)

    def rebase(self, measured: StartMeasurements) -> None:
        """Put better measurements in the place of the first; live batches set the pace as before.

        Args:
            measured: of the same engine, with a wide session where there was one.
        """
        self._lane.rebase(measured.lane)
        if self._wide and measured.wide:
            self._wide.rebase(measured.wide)
        self._renew()

    def probe(self, shape: Shape, now: float) -> bool:
        """Whether to try what is predicted to be late: no such batch has run for a while.

        A refusal then would rest on a prediction alone, which nothing but a batch can correct. At
        most one in as long a while, of each class.
        """
        kind = size_class(shape)
        if now - self._seen.get(kind, -math.inf) < _STALE_SECONDS:
            return False
        self._seen[kind] = now
        return True

    def note(self, shape: Shape, seconds: float, now: float, *, wide: bool, way: float) -> bool:
        """Note a lone batch, as :meth:`observe` takes it in; whether it is time to :meth:`learn`.

        One at a time costs a call more than all else that is done for it here; eight at once,
        whose code and numbers are in the cache then, cost little more than one.
        """
        self._noted.append((shape, seconds, now, wide, way))
        expected = (self.costs.on_wide if wide else self.costs.on_lane)(shape)
        return (
            len(self._noted) >= _TOGETHER
            or not _ALIKE * expected < seconds + way < expected / _ALIKE
            or size_class(shape) in self.costs.due  # it was tried, and need not be again
        )

    def learn(self) -> None:
        """Take in what was noted."""
        noted, self._noted = self._noted, []
        for shape, seconds, now, wide, way in noted:
            self.observe(shape, seconds, now, wide=wide, way=way, lone=True)

    def observe(  # noqa: PLR0913 - what a batch was, by keyword
        self,
        shape: Shape,
        seconds: float,
        now: float,
        *,
        wide: bool,
        way: float = 0.0,
        lone: bool = False,
    ) -> None:
        """Take in a batch that ran.

        Args:
            shape: of it.
            seconds: that the engine took.
            now: on the clock of :meth:`idle`.
            wide: it ran on the wide session.
            way: seconds from its start here to its end here, without those of the engine.
            lone: every lane was free for it, and nothing else waited.
        """
        self._seen[size_class(shape)] = now
        self._length += (1 - _MEMORY) * (shape.tokens / shape.sequences - self._length)
        tracker = self._wide if wide and self._wide else self._lane
        self._last[tracker] = now
        if seconds <= 0:
            return
        changed = tracker.observe(Measurement(shape, seconds), way)
        if lone:
            self._classes[tracker].observe(shape, seconds + way, now)
            if self._wide:
                self._turns.observe(shape, wide=wide)
        if self._forget_stale(now) or changed:
            self._renew()
        elif lone:
            self._renew_class(tracker, size_class(shape))

    def idle(self, now: float) -> None:
        """Nothing runs and nothing waits: after a while, forget what had slowed batches down.

        A model that had become too slow would refuse the very batches that could correct it.
        """
        if self._noted and now - self._noted[0][2] > _NOTED_SECONDS:
            self.learn()
        if self._forget_stale(now):
            self._renew()

    def _forget_stale(self, now: float) -> bool:
        """Let models forget that have seen no batch for a while; True if any has.

        A wide session that was slow while all lanes were busy would never be tried again.
        """
        if now <= self._fresh:
            return False
        stale = False
        for tracker, last in self._last.items():
            if now - last > _STALE_SECONDS:
                tracker.forget()
                self._last[tracker] = now
                stale = True
            stale = self._classes[tracker].forget(now - _STALE_SECONDS) or stale
        oldest = min(now, *self._last.values(), *(one.oldest for one in self._classes.values()))
        self._fresh = oldest + _STALE_SECONDS
        return stale

    def _renew_class(self, tracker: CostTracker, kind: int) -> None:
        """Renew what is known of one class alone."""
        costs, is_lane = self.costs, tracker is self._lane
        known = costs.lane_factors if is_lane else costs.wide_factors
        factor, due = self._classes[tracker].factor(kind, tracker.model), self._turns.due()
        if known.get(kind) == factor and due == costs.due:
            return
        renewed = {**known, kind: factor}
        self.costs = Costs(
            costs.lane,
            costs.wide,
            renewed if is_lane else costs.lane_factors,
            costs.wide_factors if is_lane else renewed,
            due,
        )

    def _renew(self) -> None:
        lane, wide = self._lane, self._wide
        self.costs = Costs(
            lane.model,
            wide.model if wide else None,
            self._classes[lane].factors(lane.model),
            self._classes[wide].factors(wide.model) if wide else {},
            self._turns.due(),
        )
        typical = max(1, round(self._length))
        self.full = self.costs.lane.knee(typical, self.policy.max_tokens)
        seconds = budget(self.costs.lane, self.full)
        self.policy = replace(self.policy, budget_seconds=seconds, margin=_MARGIN * self.overrun)
