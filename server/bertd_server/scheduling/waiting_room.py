"""All flights that have not landed: found by their key, and those that wait, in line.

::

    board ──> by key ──> line, backlog ──take──> batch ──> land
                           │        ^
                  withdraw │        │ a passenger boards or leaves: the flight's urgency changes
                           v
                       nobody left: gone

The line says who is next, the backlog how long it takes; a flight is in both or in neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bertd_server.engine.packing import TokenSequence
from bertd_server.scheduling.admission import Backlog
from bertd_server.scheduling.batching import BatchPolicy, Costs, Decision, FreeLanes
from bertd_server.scheduling.cost import Shape
from bertd_server.scheduling.deduplication import InFlightRequest, Submission
from bertd_server.scheduling.line import Line


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a call: its index there, the key of its flight, and what is to be computed."""

    index: int
    key: bytes
    sequence: TokenSequence
    outputs: tuple[str, ...]
    shape: Shape


class WaitingRoom:
    """Owns every flight from boarding to landing.

    Attributes:
        backlog: predicted work of the flights in line.
    """

    def __init__(self, horizon: float) -> None:
        """Tell deadlines apart up to `horizon` seconds from now."""
        self.backlog = Backlog(horizon)
        self._line: Line[InFlightRequest] = Line()
        self._flights: dict[bytes, InFlightRequest] = {}

    def __len__(self) -> int:
        """How many flights stand in line."""
        return len(self._line)

    @property
    def first(self) -> InFlightRequest:
        """The flight that goes next in the ordinary order; there must be one."""
        return next(iter(self._line))

    @property
    def eldest(self) -> InFlightRequest:
        """The flight in line with the earliest turn; there must be one."""
        return self._line.eldest

    def new(self, texts: Iterable[Text]) -> list[Text]:
        """Those of `texts` that are not in flight, each sequence once."""
        return list({t.key: t for t in texts if t.key not in self._flights}.values())

    def board(self, call: Submission, texts: Sequence[Text], costs: Costs, now: float) -> int:
        """Put texts on flights, those in flight or new ones; returns how many joined another's.

        Each text's turn comes after the work of the call's texts before it, as if they arrived one
        after the other: those of other calls get in between.
        """
        turn, joined = now, 0
        for text in texts:
            flight = self._flights.get(text.key)
            if flight is None:
                flight = InFlightRequest(text.key, text.sequence, text.outputs, text.shape, turn)
                self._flights[text.key] = flight
                flight.board(call, text.index)
                self.enter(flight, costs, now)
                turn += costs.lane.share(text.shape)
            else:
                joined += 1
                waits = self._exit(flight)
                flight.board(call, text.index)
                if waits:
                    self.enter(flight, costs, now)
        return joined

    def withdraw(self, call: Submission, costs: Costs, now: float) -> None:
        """Forget a call; a flight that waits for nobody else goes."""
        for flight in call.flights:
            waits = self._exit(flight)
            flight.leave(call)
            if waits and flight.passengers:
                self.enter(flight, costs, now)
            elif waits:
                self.land(flight)

    def take(
        self, policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float
    ) -> Decision[InFlightRequest]:
        """Form a batch; it and what is late leave the line."""
        decision = self._line.take(policy, costs, lanes, now)
        for flight in (*decision.batch, *decision.late):
            self._uncount(flight)
        return decision

    def enter(self, flight: InFlightRequest, costs: Costs, now: float) -> None:
        """Let a flight stand in line."""
        flight.place = self.backlog.add(
            flight.priority,
            flight.deadline,
            now,
            seconds=costs.lane.share(flight.shape),
            tokens=flight.shape.tokens,
            turn=flight.turn,
        )
        self._line.add(flight)

    def land(self, flight: InFlightRequest) -> list[tuple[Submission, int]]:
        """A flight is over: nobody can board it any more; returns whom it carried."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        passengers, flight.passengers = flight.passengers, []
        return passengers

    def clear(self) -> list[InFlightRequest]:
        """Empty the line; returns all flights that have not landed, those that run included."""
        flights = list(self._flights.values())
        for flight in flights:
            self._exit(flight)
        return flights

    def _exit(self, flight: InFlightRequest) -> bool:
        """Take a flight out of the line; False if it does not stand there."""
        if flight.place is None:
            return False
        self._line.remove(flight)
        self._uncount(flight)
        return True

    def _uncount(self, flight: InFlightRequest) -> None:
        if flight.place is not None:
            self.backlog.remove(flight.place)
            flight.place = None
