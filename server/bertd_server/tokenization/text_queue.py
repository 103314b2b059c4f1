"""Texts on their way to the tokeniser: how much may wait there, and who need not any more.

::

    short call ─────────────────────────────────────────────> tokenizer, on the event loop
    long call ──> Overloaded, if too much waits
         └─────> slices ──> one thread: a slice of each call in turn ──> tokenizer
                                └── its call was cancelled or is late: dropped, not encoded

A slice is a few texts, or one long one. So a long call delays the others by a slice, not by all of
it; and where no offsets are wanted, the tokens that truncation will cut are in memory for one slice
at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from bertd_server.errors import DeadlineMissed, Draining, Overloaded
from bertd_server.tokenization.reader import Input

# Up to so many characters a call is tokenised on the event loop: a thread costs more.
INLINE_CHARACTERS = 2_000
SLICE_CHARACTERS = 20_000  # some ms

_FIRST_PACE = 1e6  # characters a second, until a slice was timed
_WEIGHT = 0.2  # of the newest slice in the pace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Limits of texts; :mod:`bertd_server.config.settings` says what each value means."""

    max_text_characters: int = 100_000
    max_queue_characters: int = 4_000_000
    max_request_tokens: int = 0


class TextQueue:
    """Has the texts of calls tokenised. Use it on one event loop.

    Attributes:
        options: limits.
        waiting: characters that wait for the tokeniser's thread, or are with it.
    """

    def __init__(
        self,
        options: TextOptions,
        refused: Counter[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take texts for a tokenizer.

        Args:
            options: limits.
            refused: counts the calls that were not taken, by reason.
            clock: seconds, monotonic; deadlines are on it.
        """
        self.options = options
        self._refused = refused
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bertd-tokenize")
        self._pace = _FIRST_PACE
        self._closed = False
        self.waiting = 0

    async def run(
        self,
        inputs: Sequence[Input],
        work: Callable[[Sequence[Input]], list[T]],
        *,
        extra: int = 0,
        deadline: float = math.inf,
    ) -> list[T]:
        """Tokenise the inputs of a call, each with its own outcome, in order.

        Cancelling the call drops those that were not yet encoded.

        Args:
            inputs: texts and pairs.
            work: tokenises some of them, on any thread; refuses those that are too long for it.
            extra: characters that it puts before each.
            deadline: on the clock.

        Raises:
            Overloaded: too many characters wait.
            DeadlineMissed: the deadline passed while texts waited.
            Draining: the server stopped meanwhile.
        """
        if sum(one.characters for one in inputs) + extra * len(inputs) <= INLINE_CHARACTERS:
            return work(inputs)
        slices = list(self._slices(inputs, extra))
        left = sum(size for _, size in slices)
        self._admit(left)
        self.waiting += left
        outcomes: list[T] = []
        try:
            for part, size in slices:
                outcomes += await self._encode(partial(work, part), size, deadline)
                self.waiting -= size
                left -= size
        finally:
            self.waiting -= left
        return outcomes

    def relimit(self, *, max_queue_characters: int) -> None:
        """Change how much may wait; what waits already stays."""
        self.options = replace(self.options, max_queue_characters=max_queue_characters)

    def close(self) -> None:
        """Take no more, and let the thread end."""
        self._closed = True
        self._thread.shutdown(wait=False)

    def _slices(self, inputs: Sequence[Input], extra: int) -> Iterator[tuple[list[Input], int]]:
        """Neighbours that are encoded together, and their characters, `extra` for each.

        Those of an input that is refused for its length do not count: it is not encoded.
        """
        part: list[Input] = []
        size = 0
        limit = self.options.max_text_characters
        for one in inputs:
            refused = max(len(one.text), len(one.pair or "")) > limit
            more = 0 if refused else one.characters + extra
            if part and size + more > SLICE_CHARACTERS:
                yield part, size
                part, size = [], 0
            part.append(one)
            size += more
        yield part, size

    def _admit(self, characters: int) -> None:
        """Refuse a call that finds too much before it; an empty queue takes any."""
        limit = self.options.max_queue_characters
        excess = self.waiting + characters - limit
        if not self.waiting or excess <= 0:
            return
        # Only an empty queue takes a call that is beyond the limit by itself.
        reason = "call_characters" if characters > limit else "queue_characters"
        self._refused[reason] += 1
        raise Overloaded(
            f"{self.waiting} characters wait for the tokeniser, the call has {characters} and the "
            f"limit is {limit}: retry later with back-off, or send fewer or shorter texts a call",
            reason=reason,
            retry_after_seconds=min(excess, self.waiting) / self._pace,
        )

    async def _encode(self, work: Callable[[], list[T]], size: int, deadline: float) -> list[T]:
        """Have a slice encoded once it is its turn.

        The executor does not begin what was cancelled by then; a deadline is looked at here.
        """
        if self._closed:
            self._refused["draining"] += 1
            raise Draining("the server is shutting down: send the request to another one")

        def encode() -> tuple[list[T], float] | None:
            if self._clock() >= deadline:
                return None
            begin = time.perf_counter()
            outcomes = work()
            return outcomes, time.perf_counter() - begin

        done = await asyncio.get_running_loop().run_in_executor(self._thread, encode)
        if done is None:
            self._refused["deadline"] += 1
            raise DeadlineMissed(
                "the deadline passed while texts waited for the tokeniser: "
                "allow more time, or send fewer or shorter texts a call"
            )
        outcomes, seconds = done
        if size and seconds:
            self._pace += _WEIGHT * (size / seconds - self._pace)
        return outcomes
