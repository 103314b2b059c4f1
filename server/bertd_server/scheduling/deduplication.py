"""Equal texts are computed once: all calls that want a sequence wait for one request in flight.

::

    Submission ── texts ──join──> InFlightRequest (one sequence) ──> queue ──> batch ──> outputs
    Submission ── texts ────┘       waiters: (submission, index of the text)             │
         ^──────────────── complete(index, completion) ──────────────────────────────────┘

A request is as urgent as its most urgent waiter. When the last one leaves before it was started, it
is withdrawn; one that was started completes for nobody, but for the cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from bertd_server.engine.engine import GraphOutputs
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import RequestError
from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.request_queue import RequestQueue
from bertd_server.system.call_metrics import Stages


class Computed(NamedTuple):
    """One text's outputs and how they came about; durations in ns.

    Attributes:
        outputs: float32 `[rows, …]` by name, as the engine gives them. Callers share them.
        queue_ns: from submission to the start of the batch.
        compute_ns: of the batch.
        batch_sequences: sequences in the batch; 0 if the outputs came from the cache.
        batch_tokens: tokens in the batch; 0 likewise.
    """

    outputs: GraphOutputs
    queue_ns: int
    compute_ns: int
    batch_sequences: int
    batch_tokens: int


Completion = Computed | RequestError


@dataclass(slots=True, eq=False)
class Submission:
    """The texts of one call, and who waits for them. Times on the scheduler's clock.

    Attributes:
        deadline: of all its texts.
        priority: its class.
        arrived: when.
        completions: of its texts, in order; None for those that have none yet.
        missing: how many have none yet.
        done: set when none is missing.
        hear: told of each completion in the place of `completions`, which then keep none.
        stages: told of each text that was computed; None where nothing traces the call.
        requests: that it waits for, the first ones first.
    """

    deadline: float
    priority: int
    arrived: float
    completions: list[Completion | None]
    missing: int
    done: asyncio.Future[None]
    stages: Stages | None = None
    hear: Callable[[int, Completion], None] | None = None
    requests: dict[InFlightRequest, None] = field(default_factory=dict)

    def complete(self, index: int, completion: Completion) -> None:
        """Complete a text; the last one ends the wait."""
        if self.hear is None:
            self.completions[index] = completion
        else:
            self.hear(index, completion)
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class InFlightRequest:
    """A sequence that is to be computed. It is what :mod:`.batching` calls a text.

    Attributes:
        key: equal for equal sequences and outputs.
        outputs: of the graph, that are wanted.
        waiters: submissions, each with the index of its text.
        deaths: lanes that died of a batch with it.
        probe: it runs though it is predicted to be late.
    """

    key: bytes
    sequence: TokenSequence
    outputs: tuple[str, ...]
    shape: Shape
    virtual_arrival: float
    waiters: list[tuple[Submission, int]] = field(default_factory=list)
    priority: int = 0
    deadline: float = math.inf
    passed_over: int = 0
    deaths: int = 0
    probe: bool = False

    def join(self, submission: Submission, index: int) -> None:
        """Let a text of a submission wait for it too."""
        if not self.waiters:
            self.priority, self.deadline = submission.priority, submission.deadline
        else:
            self.priority = min(self.priority, submission.priority)
            self.deadline = min(self.deadline, submission.deadline)
        self.waiters.append((submission, index))
        submission.requests[self] = None

    def leave(self, submission: Submission) -> None:
        """Let nothing of a submission wait any more."""
        self.waiters = [one for one in self.waiters if one[0] is not submission]
        self._follow_waiters()

    def expire(self, finish: float) -> list[tuple[Submission, int]]:
        """Take out, and return, the waiters for whom `finish` is too late."""
        expired = [one for one in self.waiters if one[0].deadline <= finish]
        if expired:
            self.waiters = [one for one in self.waiters if one[0].deadline > finish]
            self._follow_waiters()
        return expired

    def _follow_waiters(self) -> None:
        """Be as urgent as the most urgent of them."""
        self.priority = min((one.priority for one, _ in self.waiters), default=self.priority)
        self.deadline = min((one.deadline for one, _ in self.waiters), default=math.inf)


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that run together; `seconds` are predicted, `started` is on the scheduler's clock.

    `lone` says that every lane was free for it and nothing else waited, `short` that it runs beside
    the lanes. `span` belongs to whatever traces its calls; None where nothing does.
    """

    requests: list[InFlightRequest]
    shape: Shape
    wide: bool
    seconds: float
    started: float
    lone: bool = False
    short: bool = False
    span: Any = None

    @property
    def outputs(self) -> list[str] | None:
        """All that any of them wants; None where none names any."""
        return sorted({name for request in self.requests for name in request.outputs}) or None


class InFlightRequests:
    """Every request from its first waiter to its completion; those that wait are in the queue."""

    def __init__(self, queue: RequestQueue[InFlightRequest]) -> None:
        """Keep a queue in the order that waiters make it have."""
        self._queue = queue
        self._by_key: dict[bytes, InFlightRequest] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def new(self, requests: Iterable[InFlightRequest]) -> list[InFlightRequest]:
        """Those whose like is not in flight, each sequence once."""
        return list({r.key: r for r in requests if r.key not in self._by_key}.values())

    def join(
        self,
        submission: Submission,
        requests: Sequence[tuple[int, InFlightRequest]],
        costs: Costs,
        now: float,
        arrival: float,
    ) -> tuple[int, float]:
        """Let texts wait for requests: for their like in flight, else for these.

        Each request's virtual arrival comes after the work of those before it, as if they arrived
        one after the other: those of other calls get in between.

        Args:
            submission: the call.
            requests: one for each text, with the text's index.
            costs: predicts work.
            now: on the scheduler's clock.
            arrival: virtual, of the first of them.

        Returns:
            how many found their like, and the virtual arrival of what comes after them.
        """
        found = 0
        for index, request in requests:
            like = self._by_key.setdefault(request.key, request)
            if like is request:
                follows = bool(submission.requests)
                like.virtual_arrival = arrival
                arrival += costs.lane.share(like.shape)
                like.join(submission, index)
                self._queue.add(like, costs, now, follows=follows)
                continue
            found += 1
            waits = like in self._queue
            if waits:
                self._queue.remove(like)
            like.join(submission, index)
            if waits:
                self._queue.add(like, costs, now)
        return found, arrival

    def leave(self, submission: Submission, costs: Costs, now: float, most: int) -> bool:
        """Let a submission leave so many of its requests; whether it waits for others still.

        A request in the queue that nobody else waits for is withdrawn.
        """
        for request in list(islice(submission.requests, most)):
            del submission.requests[request]
            waits = request in self._queue
            if waits:
                self._queue.remove(request)
            request.leave(submission)
            if waits and request.waiters:
                self._queue.add(request, costs, now)
            elif waits:
                self.complete(request)
        return bool(submission.requests)

    def complete(self, request: InFlightRequest) -> list[tuple[Submission, int]]:
        """A request is over: nobody can join it any more. Returns its waiters, the first time."""
        if self._by_key.get(request.key) is request:
            del self._by_key[request.key]
        waiters, request.waiters = request.waiters, []
        return waiters

    def clear(self) -> list[InFlightRequest]:
        """Empty the queue; returns all requests in flight, those that run included."""
        for request in list(self._queue):
            self._queue.remove(request)
        return list(self._by_key.values())


def key_of(sequence: TokenSequence, outputs: Sequence[str] = ()) -> bytes:
    """Equal for equal sequences of which the same is wanted, and for no others."""
    arrays = sequence.input_ids.tobytes() + sequence.token_type_ids.tobytes()  # of equal lengths
    head = f"{sequence.prompt_tokens},{','.join(outputs)}"
    return head.encode() + b"\0" + arrays
