"""Memory of requests in flight: a call has its bytes before it takes them, or waits, or is refused.

::

    reserve ──> least, small: a share each ────────┐
        └─────> large: first come, first served ───┼──> Reservation ──resize──> ──release──> room
                  │ beyond all: refused at once    │
                  └ beyond what may wait: refused ─┘ with the time until there is some

Pure accounting, on the event loop: what a call needs is estimated by whoever calls. A call waits
behind its like alone: small ones never behind a large one, those of a few sentences never behind
long texts, of which streams have hundreds, and no call behind a stream of smaller ones. A call that
has bytes and needs more waits at the head; a second such call is refused, since two could wait for
each other for ever.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from bertd_server.errors import DeadlineMissed, Draining, Overloaded
from bertd_server.system.setting_types import format_bytes

NO_LIMIT = 2**62
# Of the budget: what a call of each kind needs at most, and what there is for such calls alone.
_LEAST, _FOR_LEAST = 1 / 4_096, 1 / 32
_SMALL, _FOR_SMALL = 1 / 256, 3 / 32
_WAITING = 1 / 4  # of the budget, that requests which wait may take themselves
_UNSURE = 4  # times: an estimate from characters may be as much too large, and no more
_FIRST_SECONDS = 1.0  # that a large call takes, until one was timed
_MUCH = 32 * 2**20  # bytes that small calls had together: then they are as good as a large one
_WEIGHT = 0.2  # of the newest call in that


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call that waits, how much more it needs, and what its request takes meanwhile."""

    needs: int
    request: int
    refused: Counter[str]
    turn: asyncio.Future[None]

    @property
    def was_given(self) -> bool:
        """Whether it has what it needs."""
        turn = self.turn
        return turn.done() and not turn.cancelled() and turn.exception() is None


class _Share:
    """A part of the budget, given in order to calls that need at most so much."""

    def __init__(self) -> None:
        self.limit = self.most = 0
        self.held = self.peak = 0  # the most since nobody held any
        self.waiters: deque[_Waiter] = deque()
        self.grower: _Waiter | None = None
        self.paused = False

    def fits(self, needs: int, *, ahead: bool = False) -> bool:
        """Whether so many bytes can be had now; those who wait go first, unless it goes ahead."""
        free = self.held + needs <= self.limit and self.grower is None
        return free and (ahead or not (self.waiters or self.paused))

    def serve(self) -> None:
        """Let go whoever can, in order."""
        while waiter := self.grower or (self.waiters[0] if self.waiters else None):
            held_back = self.paused and waiter is not self.grower
            if held_back or self.held + waiter.needs > self.limit:
                return
            self._remove(waiter)
            if not waiter.turn.done():  # else its call has gone
                self.held += waiter.needs
                waiter.turn.set_result(None)

    def leave(self, waiter: _Waiter) -> None:
        """Wait no longer; what it was given meanwhile goes back."""
        if waiter.was_given:
            self.held -= waiter.needs
        elif waiter is self.grower or waiter in self.waiters:
            self._remove(waiter)
        self.serve()

    def clear(self) -> list[_Waiter]:
        """Let nobody wait any more; returns who did."""
        waiters = [*self.waiters, *filter(None, [self.grower])]
        self.waiters.clear()
        self.grower = None
        return waiters

    def _remove(self, waiter: _Waiter) -> None:
        if waiter is self.grower:
            self.grower = None
        else:
            self.waiters.remove(waiter)


class Reservation:
    """Bytes of one call; give them back with :meth:`release`, or with `with`.

    Attributes:
        field: of the request, that makes it large.
        refused: counts the call, by reason, if it is.
        size: bytes that it has.
    """

    def __init__(self, budget: MemoryBudget, field: str, refused: Counter[str]) -> None:
        self._budget = budget
        self._share: _Share | None = None
        self._began = math.inf
        self._kept = False
        self.field = field
        self.refused = refused
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.release()

    async def resize(self, size: int, deadline: float = math.inf) -> None:
        """Have so many bytes in all from now on.

        Raises:
            Overloaded: they are more than there are, or another call waits to have more.
            DeadlineMissed: the deadline passed before there was room.
            Draining: the server stopped meanwhile.
        """
        share = self._share
        if share is None or size == self.size:
            return
        if size > self.size:
            await self._budget.grow(self, share, size, deadline)
        else:
            share.held -= self.size - size
            self.size = size
            share.serve()

    def take(self, share: _Share, size: int, now: float) -> None:
        """Have so many bytes of a share, which has counted them; those of another go back."""
        before, had = self._share, self.size
        self._share, self.size = share, size
        self._began = min(self._began, now)
        if before is not None and before is not share:
            before.held -= had
            before.serve()

    def release_after(self, task: asyncio.Task[Any] | None) -> None:
        """Have it released when a task ends, and not before; None leaves it as it is."""
        if task is not None and not task.done():
            self._kept = True
            task.add_done_callback(lambda _: self.release())

    def release(self) -> None:
        """Give all back; once is enough, and more does nothing."""
        share, self._share = self._share, None
        if share is not None:
            share.peak = max(share.peak, share.held)
            share.held -= self.size
            self.size = 0
            share.serve()
            self._budget.ended(share, self._began)


class MemoryBudget:
    """Bytes that requests in flight may take together. Use it on one event loop."""

    def __init__(
        self, limit: int = NO_LIMIT, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Give out bytes.

        Args:
            limit: how many there are.
            clock: seconds, monotonic; deadlines are on it.
        """
        self._clock = clock
        self._shares = _Share(), _Share(), _Share()
        self._large = self._shares[-1]
        self._call_seconds = _FIRST_SECONDS
        self._when_freed: Callable[[], None] = _nothing
        self.relimit(limit)

    @property
    def limit(self) -> int:
        """Bytes that there are."""
        return sum(share.limit for share in self._shares)

    @property
    def held(self) -> int:
        """Bytes that calls have."""
        return sum(share.held for share in self._shares)

    def within(self, estimate: int) -> int:
        """What to reserve for an estimate from characters; all there is if it may be too large."""
        return (
            min(estimate, self._large.limit)
            if estimate <= _UNSURE * self._large.limit
            else estimate
        )

    @property
    def busy(self) -> bool:
        """Whether a large call has bytes."""
        return self._large.held > 0

    @property
    def waiting(self) -> int:
        """Calls that wait for bytes."""
        return sum(len(each.waiters) + (each.grower is not None) for each in self._shares)

    def relimit(self, limit: int) -> None:
        """Have so many bytes from now on; what is held already stays."""
        least, small, large = self._shares
        least.most, least.limit = int(limit * _LEAST), int(limit * _FOR_LEAST)
        small.most, small.limit = int(limit * _SMALL), int(limit * _FOR_SMALL)
        large.most = large.limit = limit - least.limit - small.limit
        for share in self._shares:
            share.serve()

    def when_freed(self, told: Callable[[], None]) -> None:
        """Have `told` called whenever a large call has given back what it had."""
        self._when_freed = told

    def pause(self, *, paused: bool) -> None:
        """Let large calls wait, those that have bytes already excepted, or go on."""
        self._large.paused = paused
        self._large.serve()

    def give_up(self) -> int:
        """End the wait of all calls with `Draining`; returns how many waited."""
        waiters = [one for share in self._shares for one in share.clear() if not one.turn.done()]
        for waiter in waiters:
            waiter.refused["draining"] += 1
            waiter.turn.set_exception(
                Draining("the server stopped before there was memory: send the request again")
            )
        return len(waiters)

    async def reserve(
        self,
        size: int,
        *,
        request: int = 0,
        deadline: float = math.inf,
        field: str = "texts",
        refused: Counter[str] | None = None,
    ) -> Reservation:
        """Have so many bytes, as soon as it is the call's turn.

        Args:
            size: bytes, at least 1.
            request: of these, what the request takes while it waits.
            deadline: on the clock.
            field: of the request, that makes it large.
            refused: counts the call, by reason, if it is.

        Raises:
            Overloaded: there are not so many, or too much waits.
            DeadlineMissed: the deadline passed before there was room.
            Draining: the server stopped meanwhile.
        """
        held = Reservation(self, field, Counter() if refused is None else refused)
        share = self._of(size)
        if not share.fits(size):
            self._check(size, held)
            waits = sum(each.request for each in share.waiters)
            if waits and waits + request > _WAITING * self.limit:
                raise self._full(size, held)
            waiter = self._waiter(size, request, held)
            share.waiters.append(waiter)
            await self._turn(share, waiter, deadline)
        else:
            share.held += size
        held.take(share, size, self._clock())
        return held

    async def grow(self, held: Reservation, share: _Share, size: int, deadline: float) -> None:
        """Let a call that has bytes have more; :meth:`Reservation.resize` says how."""
        wanted = share if size <= share.most else self._of(size)
        more = size - held.size if wanted is share else size
        if not wanted.fits(more, ahead=True):
            self._check(size, held)
            if wanted.grower is not None:
                raise self._full(size, held)
            wanted.grower = waiter = self._waiter(more, 0, held)
            await self._turn(wanted, waiter, deadline)
        else:
            wanted.held += more
        held.take(wanted, size, self._clock())

    def _of(self, size: int) -> _Share:
        """The share of a call that needs so many bytes."""
        return next((one for one in self._shares if size <= one.most), self._large)

    def ended(self, share: _Share, began: float) -> None:
        """Hear that a call has given back all that it had of a share."""
        if share is self._large:
            self._call_seconds += _WEIGHT * (self._clock() - began - self._call_seconds)
            self._when_freed()
        elif not share.held:
            if share.peak >= _MUCH:
                self._when_freed()
            share.peak = 0

    @staticmethod
    def _waiter(needs: int, request: int, held: Reservation) -> _Waiter:
        turn = asyncio.get_running_loop().create_future()
        return _Waiter(needs, request, held.refused, turn)

    async def _turn(self, share: _Share, waiter: _Waiter, deadline: float) -> None:
        left = deadline - self._clock()
        try:
            async with asyncio.timeout(None if math.isinf(left) else left):
                await waiter.turn
        except TimeoutError:
            share.leave(waiter)
            raise DeadlineMissed(
                f"the call needs about {format_bytes(waiter.needs)} of memory, and others had it "
                "until its deadline: allow more time, or send fewer or shorter texts a call"
            ) from None
        except asyncio.CancelledError:
            share.leave(waiter)
            raise

    def _check(self, size: int, held: Reservation) -> None:
        """Refuse what will never fit.

        Raises:
            Overloaded: it does not.
        """
        if size > self._large.limit:
            held.refused["call_memory"] += 1
            raise Overloaded(
                f"{held.field} would take about {format_bytes(size)} of memory, and a call may "
                f"take {format_bytes(self._large.limit)} here: send fewer or shorter texts a call, "
                "or have the server started with a larger --memory-limit",
                reason="call_memory",
                retry_after_seconds=0.0,
                in_vain=True,
            )

    def _full(self, size: int, held: Reservation) -> Overloaded:
        held.refused["memory"] += 1
        return Overloaded(
            f"{held.field} would take about {format_bytes(size)} of memory, other calls have "
            f"{format_bytes(self.held)} of the {format_bytes(self.limit)} that all may take, and "
            "more wait: retry later with back-off, or send fewer or shorter texts a call",
            reason="memory",
            retry_after_seconds=self._call_seconds * (1 + len(self._large.waiters)),
        )
