"""Counts and times of an answer of tei.v1, in its message and in the call's metadata."""

from __future__ import annotations

import time
from typing import TypeVar

from bertd.tei.v1 import tei_pb2 as pb

from bertd_server.errors import RequestError
from bertd_server.tasks.ask import Reply

T = TypeVar("T")


class Tally:
    """Counts and times of an answer, from now on.

    Attributes:
        texts: that were added.
    """

    def __init__(self) -> None:
        self._begin = time.perf_counter_ns()
        self.texts = 0
        self._characters = 0
        self._tokens = 0
        self._tokenize_ns = 0
        self._queue_ns = 0
        self._compute_ns = 0

    def add(self, reply: Reply[T], characters: int) -> T:
        """Count a text, and give its value.

        Raises:
            RequestError: it has none.
        """
        if isinstance(reply.outcome, RequestError):
            raise reply.outcome
        self.texts += 1
        self._characters += characters
        self._tokens += reply.read
        if reply.trace is not None:
            self._tokenize_ns += reply.trace.tokenize_ns
            self._queue_ns += reply.trace.queue_ns
            self._compute_ns += reply.trace.compute_ns
        return reply.outcome

    def metadata(self) -> pb.Metadata:
        """Sums of the counts, means of the times; there is at least one text."""
        return pb.Metadata(
            compute_chars=self._characters,
            compute_tokens=self._tokens,
            total_time_ns=time.perf_counter_ns() - self._begin,
            tokenization_time_ns=self._tokenize_ns // self.texts,
            queue_time_ns=self._queue_ns // self.texts,
            inference_time_ns=self._compute_ns // self.texts,
        )


def headers(metadata: pb.Metadata) -> tuple[tuple[str, str], ...]:
    """The same counts and times as response metadata, times in ms, as the protocol's server has."""
    total = str(metadata.total_time_ns // 1_000_000)
    return (
        ("x-compute-time", total),
        ("x-compute-characters", str(metadata.compute_chars)),
        ("x-compute-tokens", str(metadata.compute_tokens)),
        ("x-total-time", total),
        ("x-tokenization-time", str(metadata.tokenization_time_ns // 1_000_000)),
        ("x-queue-time", str(metadata.queue_time_ns // 1_000_000)),
        ("x-inference-time", str(metadata.inference_time_ns // 1_000_000)),
    )
