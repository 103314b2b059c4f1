"""The schedulers that are compared. All see the same requests, lanes and costs.

All drop what is late already before it costs anything: Triton and TEI do that when a client has
gone, and here clients go at their deadline. So only the choice of batches and the admission are
compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from bertd_server.scheduling.admission import Bounds, Demand, Outlook, refusal
from bertd_server.scheduling.batching import BatchPolicy, Costs
from bertd_server.scheduling.request_queue import RequestQueue

from bertd_bench.scheduling.simulation import Choice, QueueView, SimulatedRequest

_HORIZON = 60.0  # seconds; no objective here is longer
_BOUNDS = Bounds(tokens=1_048_576, seconds=_HORIZON)  # deadlines are what limits the queue here


class Ours:
    """What bertd does, with the live scheduler's own parts: `RequestQueue` and `refusal`."""

    def __init__(self, policy: BatchPolicy, costs: Costs) -> None:
        self._policy = policy
        self._costs = costs
        self._queue: RequestQueue[SimulatedRequest] = RequestQueue(_HORIZON)

    def admit(self, request: SimulatedRequest, state: QueueView) -> bool:
        """Whether it can be answered in time, and nobody's promise is broken by it."""
        shape, now = request.shape, state.now
        demand = Demand(
            priority=request.priority,
            deadline=request.deadline,
            tokens=shape.tokens,
            seconds=self._costs.lane.share(shape),
            longest=self._costs.lane.seconds(shape),
            soonest=self._costs.soonest(shape),
        )
        busy = [0.0] * state.lanes.idle + [max(0.0, free - now) for free in state.free_at]
        outlook = Outlook(self._queue.backlog, busy, self._policy.budget_seconds, now, 0.0)
        if refusal(demand, outlook, _BOUNDS) is not None:
            return False
        self._queue.add(request, self._costs, now)
        return True

    def choose(self, state: QueueView) -> Choice:
        """The live scheduler's pure function, on the front of the queue."""
        decision = self._queue.take(self._policy, self._costs, state.lanes, state.now)
        return Choice(decision.batch, decision.late, decision.wide)


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """Triton's dynamic batcher: arrival order, a batch of up to `most`, or what `window` brought.

    A batch runs once it is full, or once its oldest request has waited for the window.
    Source: Triton's `max_batch_size` and `max_queue_delay_microseconds`.

    Attributes:
        window: seconds.
        most: requests in a batch.
    """

    window: float
    most: int

    def admit(self, request: SimulatedRequest, state: QueueView) -> bool:  # noqa: ARG002 - the protocol's
        """Everything."""
        return True

    def choose(self, state: QueueView) -> Choice:
        """The oldest requests, if there are enough or they have waited enough."""
        late, live = _split(state)
        if not live:
            return Choice(dropped=late)
        ready = live[0].virtual_arrival + self.window
        if len(live) < self.most and state.now < ready:
            return Choice(dropped=late, look_again=ready)
        return Choice(live[: self.most], late)


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """text-embeddings-inference's queue: arrival order, as many as fit into a budget of tokens.

    A free lane takes what there is. Source: TEI's `max_batch_tokens`, 16,384 by default, and
    `max_concurrent_requests`, 512 by default, above which a request is refused.

    Attributes:
        budget: tokens in a batch.
        most: requests that may wait.
    """

    budget: int = 16_384
    most: int = 512

    def admit(self, request: SimulatedRequest, state: QueueView) -> bool:  # noqa: ARG002 - the protocol's
        """While there is room."""
        return len(state.waiting) < self.most

    def choose(self, state: QueueView) -> Choice:
        """The longest prefix within the budget."""
        late, live = _split(state)
        batch: list[SimulatedRequest] = []
        tokens = 0
        for request in live:
            tokens += request.arrival.tokens
            if tokens > self.budget and batch:
                break
            batch.append(request)
        return Choice(batch, late)


def _split(state: QueueView) -> tuple[list[SimulatedRequest], list[SimulatedRequest]]:
    """Those whose clients have gone, and the others, in order of arrival."""
    late = [request for request in state.waiting if request.deadline <= state.now]
    return late, [request for request in state.waiting if request.deadline > state.now]
