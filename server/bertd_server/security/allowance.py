"""What a key may use: requests and tokens a second, and calls at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from bertd_server.errors import Overloaded

_SOON = 0.1  # seconds after which one of the calls at work may have ended
_PATIENCE = 5.0  # seconds; clients that retry by themselves hear of longer waits at once


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Of one key; infinite where there is none.

    Attributes:
        per_second: requests, on average.
        burst: requests at once after a pause, at least 1.
        concurrent: calls at work.
        tokens_per_second: that models read, on average, those of each window counted.
    """

    per_second: float = math.inf
    burst: float = math.inf
    concurrent: float = math.inf
    tokens_per_second: float = math.inf


class Allowance:
    """Requests and tokens that are left, which grow with time, and a count of what is at work.

    A call has one request, a stream one for each message. What a request has models read is known
    only after it has begun, so that it may leave a debt: the next one waits until time has paid it.
    Use it on one event loop.
    """

    def __init__(self, limits: KeyLimits, clock: Callable[[], float]) -> None:
        """Begin with all that may be left; `clock` gives seconds, monotonic."""
        self.limits = limits
        self._clock = clock
        self._requests = limits.burst
        self._tokens = limits.tokens_per_second  # below 0 they are owed
        self._filled = clock()
        self._at_work = 0

    @property
    def unlimited(self) -> bool:
        """Whether there is nothing to count."""
        return self.limits == KeyLimits()

    def wait(self) -> float:
        """Take a request and return 0, or the seconds until there is one."""
        limits = self.limits
        self._fill()
        if self._tokens < 0:
            return -self._tokens / limits.tokens_per_second
        if math.isinf(limits.per_second):
            return 0.0
        if self._requests >= 1:
            self._requests -= 1
            return 0.0
        return (1 - self._requests) / limits.per_second

    def take(self, key: str) -> None:
        """Take a request.

        Raises:
            Overloaded: there is none, or tokens are owed; it carries until when.
        """
        wait = self.wait()
        if not wait:
            return
        limits, owed = self.limits, self._tokens < 0
        what = (
            f"have {limits.tokens_per_second:g} tokens a second read"
            if owed
            else f"make {limits.per_second:g} requests a second"
        )
        remedy = "send fewer or shorter texts" if owed else "send more texts in a call"
        raise Overloaded(
            f"key {key!r} may {what}: wait {wait:.3g} s, {remedy}, or ask for a higher limit",
            reason="key_tokens" if owed else "key_rate",
            retry_after_seconds=wait,
            in_vain=wait > _PATIENCE,
        )

    def charge(self, tokens: int) -> None:
        """Count tokens that a request has a model read; fewer than 0 give them back."""
        if not math.isinf(self.limits.tokens_per_second):
            self._fill()
            self._tokens -= tokens

    def _fill(self) -> None:
        """Let what is left grow with time, up to what a pause may leave."""
        limits, now = self.limits, self._clock()
        seconds, self._filled = now - self._filled, now
        if not math.isinf(limits.per_second):
            self._requests = min(limits.burst, self._requests + seconds * limits.per_second)
        if not math.isinf(limits.tokens_per_second):
            more = seconds * limits.tokens_per_second
            self._tokens = min(limits.tokens_per_second, self._tokens + more)

    @contextmanager
    def at_work(self, key: str) -> Iterator[None]:
        """Count a call for as long as it is at work.

        Raises:
            Overloaded: as many as may be are.
        """
        if self._at_work >= self.limits.concurrent:
            raise Overloaded(
                f"key {key!r} may have {self.limits.concurrent:g} calls at work: wait for one to "
                "end, or ask for a higher limit",
                reason="key_concurrency",
                retry_after_seconds=_SOON,
            )
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1


ALLOWANCE: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
"""Of the key of the call that this task answers; None without one, or without limits."""
