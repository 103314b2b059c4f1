"""The lanes of a server, which its models share: who of those that wait gets the lane that is free.

::

    dispatcher of a model ──schedule──> pool ──once a turn of the loop──> the one furthest behind
            ^                             │                                its share takes a step
            ├──── step: one batch <───────┤            batch ──run──> lanes
            └──── step_beside: short <────┘            batch ──run──> short lane
    calibration ──lend──> lanes that nobody wants; told to end when somebody does

Fair shares: each model is charged the lane seconds of its batches, divided by its share, and the
one that was charged least goes first. One that comes back after a pause starts level with the
others, so that nothing is saved up. A model alone has all lanes.

The short lane is one thread more, which does not step back behind the event loop. It runs a few
short texts while a long batch runs, or while the threads before and after lanes are busy: beside
those a lane, which steps back, has a tenth of a core. All else waits for a lane. Everything belongs
to the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bertd_server.scheduling.batching import FreeLanes
from bertd_server.scheduling.deduplication import Batch
from bertd_server.scheduling.lanes import BatchJob, BatchResult, Lanes, unheard


class Member(Protocol):
    """A model's dispatcher, as the pool sees it."""

    @property
    def waits(self) -> bool:
        """Whether anything waits for a lane."""

    def backlog_seconds(self) -> float:
        """Predicted lane seconds of what waits."""

    def step(self, lanes: FreeLanes, *, alone: bool) -> bool:
        """Start a batch, or complete what needs none; False if there is nothing to do now.

        Args:
            lanes: at least one is idle.
            alone: nothing of other members waits, so that a batch may take all lanes.
        """

    @property
    def is_beside_others(self) -> bool:
        """Whether other threads of its model compute for long."""

    def step_beside(self, lasting: float) -> bool:
        """Start a batch of short texts beside the lanes; False if none is worth it.

        Args:
            lasting: seconds that the longest of what runs still needs.
        """

    def rest(self) -> None:
        """Hear that all that could be started was."""


_GUEST_SECONDS = 0.02  # until jobs that are told to end have ended


@dataclass(slots=True)
class _Account:
    """What a member may have, and has had: lane seconds over its share."""

    share: float
    charged: float = 0.0


class Pool:
    """Lanes, and who uses them. Construct and use it on one event loop."""

    def __init__(
        self,
        lanes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        niceness: int = 0,
        on_lanes: Callable[[int], None] = unheard,
    ) -> None:
        """Start the lanes.

        Args:
            lanes: how many.
            clock: seconds, monotonic.
            niceness: how far they step back behind the event loop.
            on_lanes: told how many lanes are alive, whenever that changes.
        """
        self._loop = asyncio.get_running_loop()
        self._on_lanes = on_lanes
        self._accounts: dict[Member, _Account] = {}
        self._level = 0.0  # what the member was charged that went last
        self._running: set[Batch] = set()
        self._wide: Batch | None = None  # the one of these that has all lanes
        self._short: Batch | None = None  # the one that runs beside them
        self._due = False
        self._clock = clock
        self._rested = clock()  # when the last batch ended
        self._guests = 0  # jobs that nobody waits for
        self._end_guests: Callable[[], None] = _nothing
        self._lanes = Lanes(lanes, clock=clock, changed=self._lanes_changed, niceness=niceness)
        self._short_lane = Lanes(1, clock=clock, changed=lambda _: self.schedule())

    @property
    def alive(self) -> int:
        """Lanes that can run batches."""
        return self._lanes.alive

    def join(self, member: Member, share: float = 1.0) -> None:
        """Let a member use the lanes, as much as its share beside those of others that do."""
        self._accounts[member] = _Account(share, self._level)

    def leave(self, member: Member) -> None:
        """A member needs no lane any more; what it runs ends on its own."""
        self._accounts.pop(member, None)

    def wake(self, member: Member) -> None:
        """A member has work again after it had none."""
        account = self._accounts.get(member)
        if account is not None:
            account.charged = max(account.charged, self._level)

    def schedule(self) -> None:
        """Dispatch once this turn of the loop is over, so that its other calls join the batch."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self.dispatch)

    def dispatch(self) -> None:
        """Give lanes that are free to members that wait."""
        self._due = False
        waiting = [member for member in self._accounts if member.waits]
        if waiting:
            if self._guests:
                self._end_guests()
            self._run_beside(waiting)
            waiting = [member for member in waiting if member.waits]
        while waiting and not self._guests:
            total = self._lanes.alive
            free = FreeLanes(0 if self._wide else max(0, total - len(self._running)), total)
            if not free.idle:
                break
            member = waiting[0]
            if len(waiting) > 1:
                member = min(waiting, key=lambda one: self._accounts[one].charged)
            self._level = max(self._level, self._accounts[member].charged)
            alone = len(waiting) == 1 and self._short is None
            if not member.step(free, alone=alone) or not member.waits:
                waiting.remove(member)
        if waiting:
            self._run_beside(waiting)
        for member in tuple(self._accounts):
            member.rest()

    def _run_beside(self, members: Sequence[Member]) -> None:
        """Run short texts of one of the members on the short lane, if it is free."""
        lasting = 0.0 if self._short is not None else self.lasting()
        if not lasting:
            return
        for member in sorted(members, key=lambda one: self._accounts[one].charged):
            if member.step_beside(lasting):
                return

    def lasting(self) -> float:
        """Seconds that the longest of what runs still needs; infinite where other threads compute.

        0 where nothing does, or there is no short lane to run beside it.
        """
        if not self._short_lane.alive or not self.alive:
            return 0.0
        if any(member.is_beside_others for member in self._accounts):
            return math.inf
        if not self._running and not self._guests:
            return 0.0
        return max(self.busy(self._clock()))

    def run(self, member: Member, batch: Batch, job: BatchJob) -> None:
        """Hand a member's batch to a lane, and charge it."""
        self._charge(member, batch, batch.seconds)
        if batch.short:
            self._short = batch
            self._short_lane.run(job)
            return
        self._running.add(batch)
        if batch.wide:
            self._wide = batch
        self._lanes.run(job)

    def ended(self, member: Member, batch: Batch, seconds: float) -> None:
        """A batch has ended, after so many seconds."""
        if batch is self._short:
            self._short = None
        else:
            self._running.remove(batch)
        if batch is self._wide:
            self._wide = None
        self._charge(member, batch, seconds - batch.seconds)
        self._rested = self._clock()

    def ran(self, member: Member, batch: Batch, seconds: float) -> None:
        """A batch of a member ran on the event loop, for so many seconds: it is charged for it."""
        self.wake(member)
        if account := self._accounts.get(member):
            self._level = max(self._level, account.charged)
        self._charge(member, batch, seconds)
        self._rested = self._clock()

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses or wants a lane, but for guests, who give way."""
        runs = self._running or self._short
        return not runs and not any(member.waits for member in self._accounts)

    def quiet_seconds(self) -> float:
        """How long no lane has been used or wanted; 0 while one is."""
        if not self.is_idle or self._guests or not self._lanes.alive:
            return 0.0
        return self._clock() - self._rested

    def lend(self, jobs: Sequence[BatchJob], end: Callable[[], None]) -> None:
        """Run jobs that nobody waits for, while the pool is quiet; they count as all lanes.

        Args:
            jobs: at most one for each lane that is alive.
            end: makes them end within some tens of ms; called once somebody wants a lane.
        """
        self._guests = len(jobs)
        self._end_guests = end
        for job in jobs:
            self._lanes.run(replace(job, done=partial(self._guest_ended, job.done)))

    def _guest_ended(self, done: Callable[[BatchResult], None], result: BatchResult) -> None:
        self._guests -= 1
        if not self._guests:
            self._end_guests = _nothing
            self.schedule()
        done(result)

    def busy(self, now: float) -> list[float]:
        """Seconds that each living lane still needs for what it runs, as predicted.

        A batch that is overdue is taken to need as long again: the machine may be slow or stalled,
        and calls must not be told to come back at once.
        """
        if self._guests:
            return [_GUEST_SECONDS] * self.alive
        needs = [
            abs(batch.started + batch.seconds - now)
            for batch in self._running
            for _ in range(self.alive if batch.wide else 1)
        ]
        return [*needs, *[0.0] * (self.alive - len(needs))]

    def rivals(self, member: Member) -> list[tuple[float, float]]:
        """For each other member that waits: its lane seconds, and its share over this one's."""
        if len(self._accounts) == 1:
            return []
        share = self._accounts[member].share if member in self._accounts else 1.0
        return [
            (other.backlog_seconds(), account.share / share)
            for other, account in self._accounts.items()
            if other is not member and other.waits
        ]

    def close(self, *, wait: bool = True) -> None:
        """End the lanes; without `wait`, one that never comes back is left behind."""
        self._lanes.close(wait=wait)
        self._short_lane.close(wait=wait)

    def _charge(self, member: Member, batch: Batch, seconds: float) -> None:
        account = self._accounts.get(member)
        if account is not None:
            lanes = max(1, self._lanes.alive) if batch.wide else 1
            account.charged += seconds * lanes / account.share

    def _lanes_changed(self, alive: int) -> None:
        self.schedule()
        self._on_lanes(alive)


def _nothing() -> None:
    """What ends guests where there are none."""
