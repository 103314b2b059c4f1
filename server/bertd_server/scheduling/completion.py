"""How flights end: every passenger is told the outcome of its text, once, and counted.

::

    batch + result ──> answer ──> passengers first, then the cache
    flights ─────────> fail, abandon, strand ──> passengers: errors

A flight that has landed carries nobody: to land it again does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from bertd_server.errors import DeadlineMissed, Draining, EngineFailure
from bertd_server.scheduling.cache import Outputs, ResultCache
from bertd_server.scheduling.deduplication import Batch, Computed, InFlightRequest
from bertd_server.scheduling.lanes import BatchResult
from bertd_server.scheduling.statistics import Statistics
from bertd_server.scheduling.waiting_room import WaitingRoom
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


class Landing:
    """Where flights land; it belongs to the event loop."""

    def __init__(self, room: WaitingRoom, cache: ResultCache, statistics: Statistics) -> None:
        self._room = room
        self._cache = cache
        self._statistics = statistics

    def answer(self, batch: Batch, result: BatchResult) -> None:
        """Hand out the answers of a batch, and keep them if there is room."""
        statistics, shape = self._statistics, batch.shape
        statistics.compute.observe(result.seconds)
        statistics.batch_sequences.observe(shape.sequences)
        statistics.batch_tokens.observe(shape.tokens)
        statistics.wide_batches += batch.wide
        compute_ns = round(result.seconds * 1e9)
        for flight, computed in zip(batch.flights, result.outputs, strict=True):
            outputs = _wanted(flight, computed)
            for call, index in self._room.land(flight):
                queued = max(0.0, batch.started - call.arrived)
                statistics.queue.observe(queued)
                statistics.answered += 1
                if call.stages is not None:
                    call.stages.landed(call, batch, result)
                call.settle(
                    index,
                    Computed(
                        outputs, round(queued * 1e9), compute_ns, shape.sequences, shape.tokens
                    ),
                )
        if batch.span is not None:
            batch.span.end()
        self._keep(batch, result)

    def fail(self, flights: Iterable[InFlightRequest], error: BaseException) -> None:
        """Tell the passengers that the model failed on their text."""
        for flight in flights:
            for call, index in self._room.land(flight):
                self._statistics.failed += 1
                call.settle(index, EngineFailure(f"the model failed on this text: {error}"))

    def strand(self, flight: InFlightRequest, arrival: float) -> bool:
        """Tell those for whom `arrival` is too late; False if the flight then carries nobody."""
        for call, index in flight.strand(arrival):
            self._statistics.expired += 1
            call.settle(
                index, DeadlineMissed("the deadline came too close before the text was computed")
            )
        if flight.passengers:
            return True
        self._room.land(flight)
        return False

    def abandon(self, flights: Iterable[InFlightRequest]) -> int:
        """Tell the passengers that the server stops without an answer; returns how many."""
        texts = 0
        for flight in flights:
            for call, index in self._room.land(flight):
                texts += 1
                call.settle(
                    index,
                    Draining("the server stopped before it had an answer: send the text again"),
                )
        self._statistics.abandoned += texts
        return texts

    def _keep(self, batch: Batch, result: BatchResult) -> None:
        """Put answers into the cache. They have been given: a cache that fails costs no caller."""
        if not self._cache.budget:
            return
        try:
            for flight, computed in zip(batch.flights, result.outputs, strict=True):
                self._cache.put(flight.key, _wanted(flight, computed))
        except Exception as error:  # noqa: BLE001 - out of memory, most likely
            log.warning("results not cached", error=repr(error), sequences=batch.shape.sequences)


def _wanted(flight: InFlightRequest, computed: Outputs) -> Outputs:
    """What a flight wants of all that its batch has computed."""
    return {name: computed[name] for name in flight.outputs} or computed
