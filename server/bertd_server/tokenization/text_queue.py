"""Texts on their way to the tokeniser: how much may wait there, and who need not any more.

::

    short call ─────────────────────────────────────────────> tokenizer, on the event loop
    long call ──too much waits──> waits for room ──none in time──> Overloaded
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
# That a call waits for room. Callers who send some MiB again as soon as they are refused take more
# of the server, and of its neighbours, than the same calls take as they wait.
PATIENCE_SECONDS = 2.0
_PATIENT_CALLS = 8  # may wait so at once: their messages are in memory

_FIRST_PACE = 1e6  # characters a second, until a slice was timed
_WEIGHT = 0.2  # of the newest slice in the pace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Limits of texts; :mod:`bertd_server.config.settings` says what each value means."""

    max_text_characters: int = 100_000
    max_queue_characters: int = 4_000_000
    max_request_tokens: int = 0


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call that waits for room for its characters, which then count as waiting."""

    characters: int
    room: asyncio.Future[None]


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
        self._waiters: list[_Waiter] = []
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
            Overloaded: too many characters wait, and there was no room in time.
            DeadlineMissed: the deadline passed while texts waited.
            Draining: the server stopped meanwhile.
        """
        if sum(one.characters for one in inputs) + extra * len(inputs) <= INLINE_CHARACTERS:
            return work(inputs)
        slices = list(self._slices(inputs, extra))
        left = sum(size for _, size in slices)
        await self._admit(left, deadline)
        outcomes: list[T] = []
        try:
            for part, size in slices:
                outcomes += await self._encode(partial(work, part), size, deadline)
                left -= size
                self._leave(size)
        finally:
            self._leave(left)
        return outcomes

    def relimit(self, *, max_queue_characters: int) -> None:
        """Change how much may wait; what waits already stays."""
        self.options = replace(self.options, max_queue_characters=max_queue_characters)

    def close(self) -> None:
        """Take no more, and let the thread end; calls that wait get `Draining`."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.room.done():
                waiter.room.set_exception(self._draining())
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

    async def _admit(self, characters: int, deadline: float) -> None:
        """Count a call's characters as waiting, once there is room for them.

        Raises:
            Overloaded: there is none soon enough.
        """
        if self._has_room(characters):
            self.waiting += characters
            return
        refusal = self._overloaded(characters)
        patience = min(PATIENCE_SECONDS, deadline - self._clock())
        in_vain = self._clock() + refusal.retry_after_seconds >= deadline
        if in_vain or len(self._waiters) >= _PATIENT_CALLS:
            self._refused[refusal.reason] += 1
            raise refusal
        loop = asyncio.get_running_loop()
        waiter = _Waiter(characters, loop.create_future())
        self._waiters.append(waiter)
        timer = loop.call_later(patience, self._lose_patience, waiter)
        try:
            await waiter.room
        except asyncio.CancelledError:
            if waiter.room.done() and not waiter.room.cancelled() and not waiter.room.exception():
                self._leave(characters)
            raise
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _lose_patience(self, waiter: _Waiter) -> None:
        """Refuse a call that has waited for long enough."""
        if not waiter.room.done():
            refusal = self._overloaded(waiter.characters)
            self._refused[refusal.reason] += 1
            waiter.room.set_exception(refusal)

    def _leave(self, characters: int) -> None:
        """Have fewer characters wait; who waits for room has it in the order of arrival."""
        self.waiting -= characters
        for waiter in [one for one in self._waiters if not one.room.done()]:
            if self._has_room(waiter.characters):
                self.waiting += waiter.characters
                waiter.room.set_result(None)

    def _has_room(self, characters: int) -> bool:
        """Whether so many more may wait; an empty queue takes any."""
        return not self.waiting or self.waiting + characters <= self.options.max_queue_characters

    def _draining(self) -> Draining:
        self._refused["draining"] += 1
        return Draining("the server is shutting down: send the request to another one")

    def _overloaded(self, characters: int) -> Overloaded:
        """The refusal of a call that finds too much before it."""
        limit = self.options.max_queue_characters
        excess = self.waiting + characters - limit
        # Only an empty queue takes a call that is beyond the limit by itself.
        reason = "call_characters" if characters > limit else "queue_characters"
        return Overloaded(
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
            raise self._draining()

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
