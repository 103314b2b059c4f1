"""What of a request is refused: before its texts are read, and as each of them is.

::

    texts ──words──> tokens at least ──foresee──> too much already: refused in some µs a text
    text ──reader──> Reading ──Answerable──> can be asked about, and answered in a message
                                   └───────> its own error, or the request's: no more is read
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.tokenization.budget import Budget
from bertd_server.tokenization.reader import Fit, Input, Reading
from bertd_server.tokenization.text_queue import INLINE_CHARACTERS

_MANY = 2**40  # of tokens: more than any request may have


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


async def foresee(
    model: Model, inputs: Sequence[Input], fit: Fit, answers: Budget, token_bytes: int
) -> None:
    """Refuse a request that has too many tokens, by the words of its texts alone.

    Args:
        model: that is asked.
        inputs: of the request.
        fit: what is done with long ones.
        answers: of the bytes of all answers; nothing is spent.
        token_bytes: of an answer, for each token that is read.

    Raises:
        InvalidInput: it has.
    """
    if sum(len(one.text) for one in inputs) <= INLINE_CHARACTERS:
        return
    if fit.long_text != "window" and not token_bytes:
        return
    reading, answering = model.token_budget().at_least(), answers.at_least()
    most = min(reading.limit, answers.limit / token_bytes if token_bytes else math.inf, _MANY)
    for one in inputs:
        tokens = model.least.read(one, fit, int(most) + 1)
        if reading.spend(tokens, one) is None:  # else it has an error of its own, once it is read
            answering.spend(token_bytes * tokens, one)
        await asyncio.sleep(0)  # a long text takes a ms or two
