"""What a key may use: requests a second, and calls at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """

    per_second: float = math.inf
    burst: float = math.inf
    concurrent: float = math.inf


class Allowance:
    """A bucket of tokens that fills with time, and a count of what is at work.

    A request takes a token: a call has one request, a stream one for each message. Use it on one
    event loop.
    """

    def __init__(self, limits: KeyLimits, clock: Callable[[], float]) -> None:
        """Begin with a full bucket; `clock` gives seconds, monotonic."""
        self.limits = limits
        self._clock = clock
        self._tokens = limits.burst
        self._filled = clock()
        self._at_work = 0

    @property
    def unlimited(self) -> bool:
        """Whether there is nothing to count."""
        return self.limits == KeyLimits()

    def wait(self) -> float:
        """Take a token and return 0, or the seconds until there is one."""
        limits = self.limits
        if math.isinf(limits.per_second):
            return 0.0
        now = self._clock()
        self._tokens = min(limits.burst, self._tokens + (now - self._filled) * limits.per_second)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / limits.per_second

    def take(self, key: str) -> None:
        """Take a token.

        Raises:
            Overloaded: there is none; it carries when there is one.
        """
        wait = self.wait()
        if wait:
            raise Overloaded(
                f"key {key!r} may make {self.limits.per_second:g} requests a second: wait "
                f"{wait:.3g} s, send more texts in a call, or ask for a higher limit",
                reason="key_rate",
                retry_after_seconds=wait,
                in_vain=wait > _PATIENCE,
            )

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
