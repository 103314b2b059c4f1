"""The schedulers that are compared. All see the same requests, lanes and costs.

All drop what is late already before it costs anything: Triton and TEI do that when a client has
gone, and here clients go at their deadline. So only the choice of batches and the admission are
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertd_server.batching import Costs, Policy, form_batch
from bertd_server.cost import Shape

from bertd_bench.simulation import Choice, Request, State, packed


@dataclass(frozen=True, slots=True)
class Ours:
    """What bertd does: `form_batch`, and no request that cannot make its deadline."""

    policy: Policy
    costs: Costs

    def admit(self, request: Request, state: State) -> bool:
        """By the predicted time of its answer."""
        return admits(request, state, self.costs)

    def choose(self, state: State) -> Choice:
        """The live scheduler's pure function."""
        decision = form_batch(state.waiting, self.policy, self.costs, state.lanes, state.now)
        return Choice(decision.batch, decision.late, decision.wide)

    def charged(self, batch: Sequence[Request]) -> Shape:
        """No padding."""
        return packed(batch)


def admits(request: Request, state: State, costs: Costs) -> bool:
    """Placeholder of the server's admission."""
    ahead = 0.0
    key = (request.priority, request.deadline, request.turn)
    for other in state.waiting:
        if (other.priority, other.deadline, other.turn) <= key:
            ahead += costs.lane.share(other.shape)
    ahead += sum(max(0.0, free - state.now) for free in state.free_at)
    wait = ahead / state.lanes.total
    return state.now + wait + costs.lane.seconds(request.shape) <= request.deadline


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """Triton's dynamic batcher: arrival order, a batch of up to `most`, or what `window` brought.

    A batch runs once it is full, or once its oldest request has waited for the window.
    Source: Triton's `max_batch_size` and `max_queue_delay_microseconds`.

    Attributes:
        window: seconds.
        most: requests in a batch.
        pads: a batch costs as much as if all were as long as the longest.
    """

    window: float
    most: int
    pads: bool = False

    def admit(self, request: Request, state: State) -> bool:  # noqa: ARG002 - the protocol's
        """Everything."""
        return True

    def choose(self, state: State) -> Choice:
        """The oldest requests, if there are enough or they have waited enough."""
        late, live = _split(state)
        if not live:
            return Choice(dropped=late)
        ready = live[0].turn + self.window
        if len(live) < self.most and state.now < ready:
            return Choice(dropped=late, look_again=ready)
        return Choice(live[: self.most], late)

    def charged(self, batch: Sequence[Request]) -> Shape:
        """Padded to the longest, or packed as ours is."""
        if not self.pads:
            return packed(batch)
        longest = max(request.arrival.tokens for request in batch)
        return Shape(len(batch), len(batch) * longest, len(batch) * longest**2)


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

    def admit(self, request: Request, state: State) -> bool:  # noqa: ARG002 - the protocol's
        """While there is room."""
        return len(state.waiting) < self.most

    def choose(self, state: State) -> Choice:
        """The longest prefix within the budget."""
        late, live = _split(state)
        batch: list[Request] = []
        tokens = 0
        for request in live:
            tokens += request.arrival.tokens
            if tokens > self.budget and batch:
                break
            batch.append(request)
        return Choice(batch, late)

    def charged(self, batch: Sequence[Request]) -> Shape:
        """TEI packs on GPUs; here it does so too."""
        return packed(batch)


def _split(state: State) -> tuple[list[Request], list[Request]]:
    """Those whose clients have gone, and the others, in order of arrival."""
    late = [request for request in state.waiting if request.deadline <= state.now]
    return late, [request for request in state.waiting if request.deadline > state.now]
