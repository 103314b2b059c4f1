"""The scheduler through any history: every text is completed once, and nothing is left over.

Hypothesis chooses who comes, who leaves, how time passes and how each run ends. Lanes have no
threads here: a run ends when a rule says so, and a history can be played again.
"""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import DeadlineMissed, EngineFailure, NoLane, Overloaded, RequestError
from bertd_server.scheduling import pool
from bertd_server.scheduling.deduplication import Completion, Computed, Submission
from bertd_server.scheduling.lanes import BatchJob, BatchResult, Lanes
from helpers.held import Clock, HeldEngine, scheduler, sequences
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

CACHE_BYTES = 3_000  # of five answers


class HandLanes(Lanes):
    """Lanes whose jobs the test ends."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.jobs: list[BatchJob] = []  # those that run
        self.began: dict[int, float] = {}  # when each did, by its identity
        self.threads = True  # the system has some to give
        self.missing = 0  # lanes that wait for one
        super().__init__(*given, **named)

    def _start(self) -> None:
        if not self.threads:
            self.missing += 1
        elif not self._closed:
            self.alive += 1
            self._changed(self.alive)

    def run(self, job: BatchJob) -> None:
        self.jobs.append(job)
        self.began[id(job)] = self._clock()

    def give_threads(self) -> None:
        """Start the lanes that wait for one."""
        self.threads, missing, self.missing = True, self.missing, 0
        for _ in range(missing):
            self._start()


def value(sequence: TokenSequence) -> int:
    """What the engine answers; different for different texts."""
    return 100 * len(sequence) + int(sequence.input_ids[0])


@dataclass(frozen=True, slots=True)
class Asked:
    """A call, as its client knows it."""

    texts: list[TokenSequence]
    deadline: float
    task: asyncio.Task[list[Completion]]


class Histories(RuleBasedStateMachine):
    """What may happen to a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.broken: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.broken.append(context))
        self.clock = Clock()
        self.asked: list[Asked] = []
        self.cancelled: set[int] = set()
        self.failures = 0
        self.others_compute = False
        complete = Submission.complete

        def once(call: Submission, index: int, outcome: Completion) -> None:
            if call.completions[index] is not None:
                self.broken.append(("completed twice", call, index, outcome))
            complete(call, index, outcome)

        self.watch = patch.object(Submission, "complete", once)
        self.watch.start()

    @initialize(
        lanes=st.integers(1, 3),
        wide=st.booleans(),
        cache_bytes=st.sampled_from([0, CACHE_BYTES]),
        max_queue_tokens=st.sampled_from([60, 10_000]),
        max_passed_over=st.integers(0, 3),
    )
    def begin(self, *, wide: bool, **options: Any) -> None:
        async def make() -> None:
            with patch.object(pool, "Lanes", HandLanes):
                engine = HeldEngine()  # no lane has a thread that would call it
                self.it = scheduler(engine, self.clock, wide=wide, **options)

        self.loop.run_until_complete(make())
        self.dispatcher = self.it._dispatcher
        self.dispatcher._beside_others = lambda: self.others_compute
        lanes, short = self.it._pool._lanes, self.it._pool._short_lane
        assert isinstance(lanes, HandLanes)
        assert isinstance(short, HandLanes)
        self.lanes, self.short = lanes, short
        self.turn()

    @rule(
        lengths=st.lists(st.integers(1, 25), min_size=1, max_size=5),
        token=st.integers(1, 2),
        within=st.sampled_from([math.inf, math.inf, 0.1, 0.01, 0.004, 0.001]),
        priority=st.integers(0, 1),
    )
    def submit(self, lengths: list[int], token: int, within: float, priority: int) -> None:
        texts, deadline = sequences(*lengths, token=token), self.clock.now + within
        task = self.loop.create_task(self.it.submit(texts, deadline, priority))
        self.asked.append(Asked(texts, deadline, task))
        self.turn()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.asked) - 1))
        if self.asked[number].task.cancel():
            self.cancelled.add(number)
        if data.draw(st.booleans()):  # else a run may end before the call knows
            self.turn()

    @rule()
    def everybody_leaves(self) -> None:
        self.cancelled |= {n for n, one in enumerate(self.asked) if one.task.cancel()}
        self.turn()

    @rule(busy=st.booleans())
    def other_threads(self, *, busy: bool) -> None:
        self.others_compute = busy

    @rule(seconds=st.sampled_from([0.0005, 0.003, 0.05, 15.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @property
    def jobs(self) -> list[BatchJob]:
        """All that run."""
        return [*self.lanes.jobs, *self.short.jobs]

    @precondition(lambda self: hasattr(self, "it") and self.jobs)
    @rule(which=st.integers(0, 2))
    def succeed(self, which: int) -> None:
        job, lanes = self.take(which)
        outputs = [{"value": np.array([value(one)], np.float32)} for one in job.sequences]
        self.end(job.done, BatchResult(outputs, lanes.began[id(job)], 0.001))

    @precondition(lambda self: hasattr(self, "it") and self.jobs)
    @rule(which=st.integers(0, 2))
    def fail(self, which: int) -> None:
        self.failures += 1
        job, lanes = self.take(which)
        result = BatchResult([], lanes.began[id(job)], 0.001, RuntimeError("no"))
        self.end(job.done, result)

    @precondition(lambda self: hasattr(self, "it") and self.jobs)
    @rule(which=st.integers(0, 2), replaced=st.booleans())
    def die(self, which: int, *, replaced: bool) -> None:
        self.failures += 1
        job, lanes = self.take(which)
        lanes.threads = replaced
        result = BatchResult([], lanes.began[id(job)], 0.001, SystemExit("no"), died=True)
        self.end(lanes._replace, threading.current_thread(), job, result)

    @precondition(lambda self: hasattr(self, "it") and (self.lanes.missing or self.short.missing))
    @rule()
    def threads_are_there_again(self) -> None:
        self.end(self.lanes.give_threads)
        self.end(self.short.give_threads)

    @invariant()
    def nothing_idles_while_texts_wait(self) -> None:
        """What waits is counted, no more runs than can, and none of it too late."""
        assert not self.broken
        if not hasattr(self, "it"):
            return
        gauges = self.it.gauges()
        waiting = [request.shape.tokens for request in self.it._queue]
        assert (gauges.waiting, gauges.waiting_tokens) == (len(waiting), sum(waiting))
        assert gauges.batches_running == len(self.jobs)
        assert len(self.lanes.jobs) <= gauges.lanes_alive
        assert len(self.short.jobs) <= 1
        free = gauges.lanes_alive - len(self.lanes.jobs)
        if free and not any(job.wide for job in self.lanes.jobs):
            assert not waiting
            assert not self.dispatcher._retries
        if not self.jobs and all(one.task.done() for one in self.asked):
            assert self.dispatcher.idle.is_set()  # also where no lane lives
        assert self.it.statistics.started_late == 0
        assert gauges.cache_bytes <= CACHE_BYTES

    def teardown(self) -> None:
        """The server stops: all that runs succeeds, and every caller has its answers."""
        try:
            if hasattr(self, "it"):
                self.finish()
        finally:
            self.watch.stop()
            self.loop.close()

    def finish(self) -> None:
        self.lanes.give_threads()
        self.short.give_threads()
        drained = self.loop.create_task(self.it.drain(60.0))
        self.turn()
        while self.jobs:
            self.succeed(0)
        assert self.loop.run_until_complete(drained)
        assert not self.broken
        assert all(one.task.done() for one in self.asked)
        assert not self.it._in_flight
        assert not self.dispatcher._retries
        gauges = self.it.gauges()
        assert (gauges.waiting, gauges.waiting_tokens, gauges.batches_running) == (0, 0, 0)
        refused = 0
        for number, one in enumerate(self.asked):
            (outcome,) = self.loop.run_until_complete(
                asyncio.gather(one.task, return_exceptions=True)
            )
            if isinstance(outcome, list):
                self.check(one, outcome)
            elif isinstance(outcome, RequestError):
                assert isinstance(outcome, Overloaded | DeadlineMissed | NoLane)
                refused += len(one.texts)
            else:
                assert isinstance(outcome, asyncio.CancelledError)
                assert number in self.cancelled
        counts = self.it.statistics
        assert counts.abandoned == 0
        assert sum(len(one.texts) for one in self.asked) == (
            counts.answered + counts.failed + counts.expired + counts.cancelled + refused
        )

    def check(self, asked: Asked, outcomes: list[Completion]) -> None:
        """Each text has its own answer, or an error that can be."""
        for text, outcome in zip(asked.texts, outcomes, strict=True):
            if isinstance(outcome, Computed):
                assert outcome.outputs["value"][0] == value(text)
            elif isinstance(outcome, EngineFailure):
                assert self.failures
            else:
                assert isinstance(outcome, DeadlineMissed)
                assert asked.deadline < math.inf

    def take(self, which: int) -> tuple[BatchJob, HandLanes]:
        """One of the jobs that run, and whose it was."""
        place, many = which % len(self.jobs), len(self.lanes.jobs)
        if place < many:
            return self.lanes.jobs.pop(place), self.lanes
        return self.short.jobs.pop(place - many), self.short

    def end(self, what: Any, *given: object) -> None:
        """Let a lane's message reach the loop."""
        self.loop.call_soon(what, *given)
        self.turn()

    def turn(self) -> None:
        """Let the loop do all that it can."""

        async def turns() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
