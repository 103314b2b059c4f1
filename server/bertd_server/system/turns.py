"""Long work on the event loop, a little at a time."""

from __future__ import annotations


class Turns:
    """Says when work has gone on for long enough to let others have their turn.

    Count pieces of work, each of some µs::

        turns = Turns(64)
        for one in many:
            ...
            if turns.over():
                await asyncio.sleep(0)
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
