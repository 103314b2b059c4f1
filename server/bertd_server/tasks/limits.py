"""What of a request is refused: before its texts are read, and as each of them is.

::

    texts ──words──> tokens at least ──Least.foreseen──> too much already: refused, and not read
    text ──reader──> Reading ──Answerable──> can be asked about, and answered in a message
                                   └───────> its own error, or the request's: no more is read
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bertd_server.errors import InvalidInput
from bertd_server.tokenization.budget import Budget
from bertd_server.tokenization.reader import Input, Reading


@dataclass(slots=True)
class Answerable:
    """Settles the readings of a request, in their order: on any thread, one at a time.

    Attributes:
        check: why an input cannot be asked about; None if it can, or if nothing is checked.
        size: of the answer to an input, in bytes.
        budget: of the bytes of all answers.
        padded: whether each answer is as large as the largest.
    """

    check: Callable[[Reading, Input], InvalidInput | None] | None
    size: Callable[[Reading], int]
    budget: Budget
    padded: bool
    _longest: int = field(init=False, default=0)
    _count: int = field(init=False, default=0)

    def __call__(self, reading: Reading | InvalidInput, one: Input) -> Reading | InvalidInput:
        """The reading, or why it is refused.

        Raises:
            InvalidInput: the answers up to this one are too large together.
        """
        if isinstance(reading, InvalidInput):
            return reading
        refused = self.check and self.check(reading, one)
        size = self.size(reading)
        if refused is None and (size > self.budget.limit or not self.padded):
            refused = self.budget.spend(size, one)
        elif refused is None:
            self._longest, self._count = max(self._longest, size), self._count + 1
            self.budget.reach(self._longest * self._count, one)
        return refused or reading
