"""What requests of every protocol share: counts are checked, and enums, which proto3 leaves open.

Inputs are made in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from bertd_server.errors import InvalidInput
from bertd_server.rpc.limits import MOST_TOGETHER
from bertd_server.system.turns import Turns, give_way
from bertd_server.tokenization.reader import Input

T = TypeVar("T")
V = TypeVar("V")

_CHARACTERS_A_TURN = 400_000  # that the event loop reads before others have their turn: 1 to 2 ms


class Enum(Protocol):
    """A generated enum."""

    def keys(self) -> list[str]:
        """Names of its values."""


def known_value(field: str, number: int, known: Mapping[int, V], enum: Enum) -> V:
    """What a field's number means.

    Args:
        field: of the request.
        number: that it has.
        known: meanings by number.
        enum: the field's type.

    Raises:
        InvalidInput: the number is no value of the enum.
    """
    try:
        return known[number]
    except KeyError:
        raise InvalidInput(
            f"{field} is {number}, which is no value of it: use one of {', '.join(enum.keys())}",
            field=field,
            reason="unknown_value",
        ) from None


def check_count(count: int, limit: int, field: str, what: str = "entries") -> None:
    """Refuse a call without inputs, or with too many."""
    if not count:
        raise InvalidInput(f"{field} is empty: send at least one", field=field, reason="empty")
    if count > limit:
        raise InvalidInput(
            f"{field} has {count} {what}, a call takes at most {limit}: "
            "split it into several calls",
            field=field,
            reason="too_many",
            limit=limit,
        )


def check_together(count: int, what: str, field: str) -> None:
    """Refuse a call that holds something for each character, or id, of its texts: for too many.

    Raises:
        InvalidInput: they are too many together.
    """
    if count > MOST_TOGETHER:
        raise InvalidInput(
            f"{field} have {count} {what}, a call takes at most {MOST_TOGETHER} together: "
            "split it into several calls",
            field=field,
            reason="too_many",
            limit=MOST_TOGETHER,
        )


async def made_inputs(given: Sequence[T], make: Callable[[T, int], Input]) -> list[Input]:
    """Inputs of a request: a message's text is copied and decoded as it is read, in turns.

    Args:
        given: what the request has of each.
        make: an input of it, and of its number.
    """
    if len(given) == 1:
        return [make(given[0], 0)]
    found, turns = list[Input](), Turns(_CHARACTERS_A_TURN)
    for number, one in enumerate(given):
        found.append(make(one, number))
        if turns.over(found[-1].characters):
            await give_way()
    return found
