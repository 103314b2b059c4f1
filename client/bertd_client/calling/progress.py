"""How far a long job is: one line on standard error that is redrawn, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

_WIDTH = 30
_SECONDS_BETWEEN = 0.1


class Progress:
    """A line such as ``[######        ] 512/2048 texts, 310/s``.

    Args:
        total: Of the inputs; ``None`` if that is not known.
        what: The inputs are.
        shown: Whether it is wanted.
        stream: Where it goes, if that is a terminal; standard error by default.
    """

    def __init__(
        self, total: int | None, what: str, *, shown: bool = True, stream: TextIO | None = None
    ) -> None:
        self._total = total
        self._what = what
        self._stream = stream or sys.stderr
        self._shown = shown and self._stream is not None and self._stream.isatty()
        self._begin = time.monotonic()
        self._drawn = 0.0
        self.done = 0

    def add(self, count: int) -> None:
        """Counts inputs that are done."""
        self.done += count
        now = time.monotonic()
        if self._shown and (now - self._drawn >= _SECONDS_BETWEEN or self.done == self._total):
            self._drawn = now
            self._stream.write(f"\r{self._line(now)}\x1b[K")
            self._stream.flush()

    def clear(self) -> None:
        """Makes room for something else."""
        if self._shown and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, now: float) -> str:
        rate = f"{self.done / max(now - self._begin, 1e-3):,.0f}/s"
        if not self._total:
            return f"{self.done:,} {self._what}, {rate}"
        filled = _WIDTH * self.done // self._total
        bar = "#" * filled + " " * (_WIDTH - filled)
        return f"[{bar}] {self.done:,}/{self._total:,} {self._what}, {rate}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()
