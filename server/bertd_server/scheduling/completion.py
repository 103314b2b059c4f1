"""How requests end: every waiter is told the completion of its text, once, and counted.

::

    batch + result ──> answer ──> waiters first, then the cache
    requests ────────> fail, expire, abandon ──> waiters: errors

A completed request has no waiters: to complete it again does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import DeadlineMissed, Draining, EngineFailure
from bertd_server.scheduling.cache import ResultCache
from bertd_server.scheduling.deduplication import (
    Batch,
    Computed,
    InFlightRequest,
    InFlightRequests,
)
from bertd_server.scheduling.lanes import BatchResult
from bertd_server.scheduling.statistics import RecentBatch, Statistics
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


class Completer:
    """Completes requests; it belongs to the event loop."""

    def __init__(
        self, in_flight: InFlightRequests, cache: ResultCache, statistics: Statistics
    ) -> None:
        self._in_flight = in_flight
        self._cache = cache
        self._statistics = statistics

    def count(self, batch: Batch, result: BatchResult, way: float) -> None:
        """Count a batch that has run, well or not.

        Args:
            batch: it.
            result: how it ended.
            way: seconds from its start here to its end here, without those of the engine.
        """
        statistics, shape = self._statistics, batch.shape
        for request in batch.requests:
            for submission, _ in request.waiters:
                statistics.started_late += submission.deadline <= result.began
        if result.error is not None:
            statistics.batch_failures += 1
            statistics.lane_deaths += result.died
            return
        statistics.cost_ratio.observe((result.seconds + way) / batch.seconds)
        statistics.compute.observe(result.seconds)
        statistics.batch_sequences.observe(shape.sequences)
        statistics.batch_tokens.observe(shape.tokens)
        statistics.wide_batches += batch.wide
        statistics.short_batches += batch.short
        if statistics.recent is not None:
            statistics.recent.append(_recent(batch, result.seconds, statistics.compute.count))

    def answer(self, batch: Batch, result: BatchResult) -> None:
        """Hand out the answers of a batch, and keep them if there is room."""
        statistics, shape = self._statistics, batch.shape
        compute_ns = round(result.seconds * 1e9)
        kept: list[tuple[bytes, GraphOutputs]] = []
        for request, computed in zip(batch.requests, result.outputs, strict=True):
            outputs: GraphOutputs = {name: computed[name] for name in request.outputs} or computed
            for submission, index in self._in_flight.complete(request):
                queued = max(0.0, batch.started - submission.arrived)
                statistics.queue.observe(queued)
                statistics.answered += 1
                if submission.stages is not None:
                    submission.stages.completed(submission, batch, result)
                queue_ns = round(queued * 1e9)
                submission.complete(
                    index, Computed(outputs, queue_ns, compute_ns, shape.sequences, shape.tokens)
                )
            if self._cache.budget:
                kept.append((request.key, outputs))
        if batch.span is not None:
            batch.span.end()
        try:
            for key, value in kept:
                self._cache.put(key, value)
        except Exception as error:  # noqa: BLE001 - out of memory, most likely; all have answers
            log.warning("results not cached", error=repr(error), sequences=shape.sequences)

    def fail(self, requests: Iterable[InFlightRequest], error: BaseException) -> None:
        """Tell the waiters that the model failed on their text."""
        for request in requests:
            for submission, index in self._in_flight.complete(request):
                self._statistics.failed += 1
                submission.complete(index, EngineFailure(f"the model failed on this text: {error}"))

    def expire(self, request: InFlightRequest, finish: float) -> bool:
        """Tell those for whom `finish` is too late; False if nobody then waits for the request."""
        for submission, index in request.expire(finish):
            self._statistics.expired += 1
            submission.complete(
                index, DeadlineMissed("the deadline came too close before the text was computed")
            )
        if not request.waiters:
            self._in_flight.complete(request)
        return bool(request.waiters)

    def abandon(self) -> int:
        """Tell all waiters that the server stops without an answer; returns how many."""
        texts = 0
        for request in self._in_flight.clear():
            for submission, index in self._in_flight.complete(request):
                texts += 1
                submission.complete(
                    index,
                    Draining("the server stopped before it had an answer: send the text again"),
                )
        self._statistics.abandoned += texts
        return texts


def _recent(batch: Batch, seconds: float, number: int) -> RecentBatch:
    lengths = tuple(len(request.sequence) for request in batch.requests)
    kind: Literal["lane", "wide", "short"] = (
        "wide" if batch.wide else "short" if batch.short else "lane"
    )
    return RecentBatch(number, lengths, seconds, batch.seconds, kind)
