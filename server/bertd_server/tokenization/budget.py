"""How much one request may have, whatever its protocol: tokens to read, bytes of its answer.

::

    what each input would take, in order ──spend──> there is room
                                           ├──────> more than a request may have: its own error
                                           └──────> too much with those before: the request's error

The reason of the request's error is that of too many inputs, and names their field: our client
then splits the request by itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bertd_server.errors import InvalidInput

# Of messages of bertd.v1, in most answers.
TOKEN_BYTES = 28
"""Of a token: its id and text, and where it is, in two units."""
RESULT_BYTES = 60
"""Of what is said of each input beside its answer."""
SCORE_BYTES = 9
"""Of a label and its score, beside the label."""

_LABELS = "labels["  # each goes with every text

if TYPE_CHECKING:
    from bertd_server.tokenization.reader import Input


class Budget:
    """What one request may have of something. Its inputs spend one after the other.

    Attributes:
        limit: of it; infinite for none.
    """

    def __init__(self, limit: float, what: str, remedy: str, *, count: str = "") -> None:
        """Begin with nothing spent.

        Args:
            limit: of the request; infinite for none.
            what: is counted, in the plural.
            remedy: beside fewer inputs, or shorter ones.
            count: what stands before how much was spent.
        """
        self._count = count
        self.limit = limit
        self._what = what
        self._remedy = remedy
        self._spent = 0

    def at_least(self) -> Budget:
        """Another one, of what is known to be spent at least."""
        return Budget(self.limit, self._what, self._remedy, count="at least ")

    def spend(self, amount: int, one: Input) -> InvalidInput | None:
        """Count what an input takes; why it cannot be had by any request, or None.

        Raises:
            InvalidInput: it is too much with what the inputs before it take.
        """
        place = place_of(one)
        if amount > self.limit:
            return InvalidInput(
                f"{place} has {self._count}{amount} {self._what}, and a request may have "
                f"{self.limit}: shorten it, or {self._remedy}",
                field=place,
                reason="too_long",
                limit=int(self.limit),
            )
        self.reach(self._spent + amount, one)
        return None

    def reach(self, amount: int, one: Input) -> None:
        """Count what all inputs up to this one take together.

        Raises:
            InvalidInput: it is too much.
        """
        self._spent = amount
        place = place_of(one)
        if self._spent > self.limit:
            raise InvalidInput(
                f"the inputs up to {place} have {self._count}{self._spent} {self._what}, and a "
                f"request may have {self.limit}: split it into several requests, or {self._remedy}",
                field=field_of(one),
                reason="too_many",
                limit=int(self.limit),
            )


def token_budget(limit: int) -> Budget:
    """Of tokens that the model reads; 0 is no limit."""
    return Budget(
        limit or math.inf,
        "tokens to read, those of each window counted",
        "make stride smaller, or have the server started with a larger --max-request-tokens",
    )


def answer_budget(limit: float) -> Budget:
    """Of bytes that answers take in a message."""
    return Budget(
        limit,
        "bytes of answer",
        "ask for less, or have the server started with a larger --max-message-bytes",
    )


def place_of(one: Input) -> str:
    """What an input is called in its request: a pair by its second text, unless that is a label."""
    second = one.pair is not None and not one.pair_field.startswith(_LABELS)
    return one.pair_field if second else one.field


def field_of(one: Input) -> str:
    """The field of a request that an input is an entry of."""
    return place_of(one).partition("[")[0]
