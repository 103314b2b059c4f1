"""Long work on the event loop, a little at a time.

::

    calls with much to look through ──give_way──> in order: one of them goes on in each turn
    all else ───────────────────────────────────> each turn, as ever
"""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

_Waiting = deque[asyncio.Future[None]]
_WAITING: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()


class Turns:
    """Says when work has gone on for long enough to let others have their turn.

    Count pieces of work, each of some µs::

        turns = Turns(64)
        for one in many:
            ...
            if turns.over():
                await give_way()
    """

    def __init__(self, size: int) -> None:
        """Let a turn have so many pieces of work."""
        self._size = size
        self._done = 0

    def over(self, pieces: int = 1) -> bool:
        """Count pieces of work; whether a turn is over with them, and the next begins."""
        self._done += pieces
        if self._done < self._size:
            return False
        self._done = 0
        return True


async def give_way() -> None:
    """Go on in a later turn of the event loop, in which no other work that gave way does.

    With ``sleep(0)`` a turn has a piece of each large call that is there, and a small one, which
    needs several turns, waits for all of them in each.
    """
    loop = asyncio.get_running_loop()
    waiting = _WAITING.setdefault(loop, deque())
    turn = loop.create_future()
    waiting.append(turn)
    if len(waiting) == 1:
        loop.call_soon(_let_go, loop, waiting)
    await turn


def _let_go(loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
    """Let the one go on that has waited longest, and do so in the next turn again."""
    while waiting:
        turn = waiting.popleft()
        if not turn.done():  # else its call has gone
            turn.set_result(None)
            break
    if waiting:
        loop.call_soon(_let_go, loop, waiting)
