"""What requests of every protocol are checked for: counts, and enums, which proto3 leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from bertd_server.errors import InvalidInput

V = TypeVar("V")


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
