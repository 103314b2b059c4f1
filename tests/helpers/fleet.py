"""Servers behind a balancer in virtual time, each the simulated one of `bertd bench simulate`.

::

    calls ──in order of time──> Balancer.choose ──> Server.receive ──> a lane, later ──> Call.ended
                                     ^                  │
                                     └── what it knows ─┘   calls in flight, or load reports

Servers do not know each other, so that each is brought to the time of a call only when it gets one
or is looked at. Network and front end take no time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bertd_bench.harness.texts import MIXED_LENGTHS
from bertd_bench.scheduling.costs import capacity
from bertd_bench.scheduling.policies import Ours
from bertd_bench.scheduling.simulation import (
    SimulatedRequest,
    _World,  # the server; only the loop around it is another here
)
from bertd_bench.scheduling.traffic import Arrival
from bertd_server.scheduling.batching import BatchPolicy, Costs, budget
from bertd_server.scheduling.cost import Shape

NEVER = math.inf
_MAX_TOKENS, _MAX_SEQUENCES = 2_048, 256  # the server's defaults
_TYPICAL = round(sum(MIXED_LENGTHS) / len(MIXED_LENGTHS))
_WINDOW = 2.0  # seconds that a load report looks back over


@dataclass(slots=True, eq=False)
class Call:
    """One text of a client.

    Attributes:
        at: seconds; when it was due.
        tokens: its length.
        ended: when it was answered; infinite if it never was.
        server: the number of the last server that got it.
    """

    at: float
    tokens: int
    ended: float = NEVER
    server: int = -1

    @property
    def seconds(self) -> float:
        """From when it was due to its answer."""
        return self.ended - self.at


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a server.

    Attributes:
        at: seconds; when.
        kind: `crash`: its connections end at once; `stuck`: it takes calls and answers none;
            `refusing`: it fails every call at once.
        known: seconds until the balancer leaves it out.
        server: its number.
    """

    at: float
    kind: str
    known: float = NEVER
    server: int = 0


class Server(_World):
    """A server of the fleet.

    Attributes:
        open: calls that each proxy has in flight here, with their requests.
    """

    def __init__(self, costs: Costs, lanes: int) -> None:
        seconds = budget(costs.lane, costs.lane.knee(_TYPICAL, _MAX_TOKENS))
        policy = BatchPolicy(_MAX_TOKENS, _MAX_SEQUENCES, seconds)
        super().__init__(Ours(policy, costs), costs, lanes)
        self.open: dict[int, list[tuple[Call, SimulatedRequest]]] = {}
        self.stuck = NEVER
        self._costs_of_lane, self._all = costs.lane, lanes

    def until(self, now: float) -> None:
        """Let it work up to a time; nothing begins once it is stuck."""
        now = min(now, self.stuck)
        while self.now < now:
            self.advance(now)
            self.dispatch()

    def call(self, call: Call, proxy: int, now: float, patience: float) -> bool:
        """Give it a call, and tell whether it took it."""
        self.until(now)
        request = SimulatedRequest(Arrival(now, call.tokens, 0, call.at + patience))
        if now < self.stuck:
            self.receive(request)
            if not request.refused:
                self.dispatch()
        self.open.setdefault(proxy, []).append((call, request))
        return not request.refused

    def in_flight(self, proxy: int, now: float) -> int:
        """Calls of a proxy that it has not answered."""
        self.until(now)
        return len(self.settle(proxy, now))

    def settle(self, proxy: int, now: float) -> list[tuple[Call, SimulatedRequest]]:
        """Write down which calls of a proxy have ended; what is left."""
        left = []
        for call, request in self.open.get(proxy, ()):
            if request.answered is None or request.answered > min(now, self.stuck):
                if not request.refused:
                    left.append((call, request))
            else:
                call.ended = request.answered
        self.open[proxy] = left
        return left

    def weight(self, now: float) -> float:
        """Its weight by its load report: calls a second over utilisation (bertd's, gRFC A58)."""
        self.until(now)
        begin = max(0.0, now - _WINDOW)
        recent = [batch for batch in self.batches[-2_000:] if batch.end > begin]
        busy = sum(
            (min(batch.end, now) - max(batch.begin, begin)) * (self._all if batch.wide else 1)
            for batch in recent
        )
        answered = sum(len(batch.requests) for batch in recent if batch.end <= now)
        waiting = sum(self._costs_of_lane.share(each.shape) for each in self.waiting) / self._all
        used = max(0.01, busy / (now - begin) / self._all + waiting) if now > begin else 0.01
        return answered / max(now - begin, 1e-9) / used


class Balancer(Protocol):
    """Chooses a server for each call."""

    def choose(self, servers: Sequence[Server], live: Sequence[int], now: float) -> tuple[int, int]:
        """The number of a server out of `live`, and of the proxy or client that chose it."""


class RoundRobin:
    """One server after the other, each client or proxy for itself; it begins anywhere."""

    def __init__(self, clients: int, rng: random.Random) -> None:
        self._rng = rng
        self._next = [rng.randrange(1 << 20) for _ in range(clients)]

    def choose(self, servers: Sequence[Server], live: Sequence[int], now: float) -> tuple[int, int]:  # noqa: ARG002 - the protocol's
        client = self._rng.randrange(len(self._next))
        self._next[client] += 1
        return live[self._next[client] % len(live)], client


class LeastRequest:
    """Of two at random the one with fewer calls in flight, as far as this proxy knows: Envoy's."""

    def __init__(self, proxies: int, rng: random.Random) -> None:
        self._rng, self._proxies = rng, proxies

    def choose(self, servers: Sequence[Server], live: Sequence[int], now: float) -> tuple[int, int]:
        proxy = self._rng.randrange(self._proxies)
        one, other = self._rng.choice(live), self._rng.choice(live)
        fewer = servers[other].in_flight(proxy, now) < servers[one].in_flight(proxy, now)
        return (other if fewer else one), proxy


class Weighted:
    """At random by load reports, which are read once a second: weighted_round_robin."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._read, self._weights = -NEVER, [1.0]

    def choose(self, servers: Sequence[Server], live: Sequence[int], now: float) -> tuple[int, int]:
        if now - self._read >= 1.0:
            known = [server.weight(now) for server in servers]
            some = [weight for weight in known if weight > 0]
            mean = sum(some) / len(some) if some else 1.0
            self._read, self._weights = now, [weight or mean for weight in known]
        return self._rng.choices(live, [self._weights[number] for number in live])[0], 0


@dataclass(slots=True)
class Fleet:
    """Servers, and what happens to one.

    Attributes:
        patience: seconds after which a caller has gone.
        retries: whether a call that failed at once is tried again elsewhere.
    """

    servers: list[Server]
    balancer: Balancer
    patience: float
    fault: Fault | None = None
    retries: bool = True
    _gone: set[int] = field(default_factory=set)

    def play(self, calls: Sequence[Call]) -> None:
        """Send calls, in order of time, and write into each when it ended."""
        fault = self.fault
        struck = False
        for call in calls:
            if fault and not struck and call.at >= fault.at:
                struck = True
                self._strike(fault)
            if fault and struck and call.at >= fault.at + fault.known:
                self._gone.add(fault.server)
            self._send(call, call.at)
        for server in self.servers:
            server.until(calls[-1].at + self.patience)
            for proxy in list(server.open):
                server.settle(proxy, NEVER)

    def _send(self, call: Call, now: float) -> None:
        live = [number for number in range(len(self.servers)) if number not in self._gone]
        number, proxy = self.balancer.choose(self.servers, live, now)
        call.server = number
        if self._refuses(number, now):
            if self.retries:
                others = [each for each in live if each != number]
                number, proxy = self.balancer.choose(self.servers, others, now)
                self.servers[number].call(call, proxy, now, self.patience)
            return
        self.servers[number].call(call, proxy, now, self.patience)

    def _refuses(self, number: int, now: float) -> bool:
        fault = self.fault
        hit = fault is not None and number == fault.server and now >= fault.at
        return hit and fault is not None and fault.kind == "refusing"

    def _strike(self, fault: Fault) -> None:
        """A crash ends what is in flight, which is sent again; a stuck server keeps it."""
        server = self.servers[fault.server]
        server.until(fault.at)
        if fault.kind == "stuck":
            server.stuck = fault.at
        if fault.kind != "crash":
            return
        self._gone.add(fault.server)
        for proxy in list(server.open):
            lost = server.settle(proxy, fault.at)
            server.open[proxy] = []
            for call, _ in lost:
                if self.retries:
                    self._send(call, fault.at)


def calls_at(rate: float, seconds: float, rng: random.Random) -> list[Call]:
    """Calls at random moments (Poisson), of the comparison's mixed lengths.

    Args:
        rate: calls a second.
        seconds: for how long.
        rng: draws them.
    """
    found: list[Call] = []
    now = rng.expovariate(rate)
    while now < seconds:
        found.append(Call(now, rng.choice(MIXED_LENGTHS)))
        now += rng.expovariate(rate)
    return found


def most(costs: Costs, lanes: int) -> float:
    """Texts of these lengths a second that a server does at most, in endless work."""
    return capacity(costs, lanes, _MAX_TOKENS, [Shape.single(length) for length in MIXED_LENGTHS])


def late(calls: Sequence[Call], seconds: float) -> float:
    """Share of the calls that were not answered within so many seconds."""
    return sum(call.seconds > seconds for call in calls) / len(calls)


def percentile(calls: Sequence[Call], share: float) -> float:
    """Seconds within which a share of all calls was answered; infinite where it never was."""
    return sorted(call.seconds for call in calls)[math.ceil(share * len(calls)) - 1]
