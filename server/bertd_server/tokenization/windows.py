"""How a long input is read, known by arithmetic before a window of it is built.

::

    tokens of each text, Fit ──plan──> Plan: windows, tokens in them ──budget──> places of each
                                 └──> refused: it does not fit, a stride leaves no room
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bertd.bundle.arrays import Int64Array
from tokenizers import Encoding

from bertd_server.errors import InvalidInput
from bertd_server.tokenization.truncation import (
    cut,
    longest_first,
    overlapping,
    stretch,
)

if TYPE_CHECKING:
    from bertd_server.tokenization.reader import Fit, Input

MOST_WINDOWS = 1_000  # of an input: a large stride would make one of nearly every token
_FIRST, _SECOND = 0, 1  # sequence ids of the texts of a pair


@dataclass(frozen=True, slots=True)
class Plan:
    """How an input is read.

    Attributes:
        windows: how many.
        tokens: in all of them.
        places: makes those of each window's tokens in the whole input, int64 `[tokens]`.
    """

    windows: int
    tokens: int
    places: Callable[[], Iterator[Int64Array]]


def plan(encoding: Encoding, one: Input, fit: Fit, limit: int) -> Plan | InvalidInput:
    """How an input is read, or why it cannot be.

    Args:
        encoding: of all of it.
        one: what its parts are called.
        fit: what to do if it is long.
        limit: tokens that the model reads at once.
    """
    total = len(encoding)
    if total <= limit:
        return whole(total)
    if fit.long_text == "error":
        return _too_long(total, one, fit, limit)
    over_first = _is_over_first(one, fit)
    first, second = stretch(encoding, _FIRST), stretch(encoding, _SECOND)
    if fit.long_text == "truncate" and not (over_first or fit.second_only):
        room = limit - (total - len(first) - len(second))
        a, b = longest_first(len(first), len(second), room)
        return _without(total, cut(first, a, fit.side), cut(second, b, fit.side))
    moving = first if over_first else second
    if (refused := unfit(total, len(moving), one, fit, limit)) is not None:
        return refused
    room = limit - (total - len(moving))
    if fit.long_text == "truncate":
        return _without(total, cut(moving, room, fit.side))
    return _windows(total, moving, room, fit)


def unfit(  # noqa: PLR0913 - by keyword
    total: int, moving: int, one: Input, fit: Fit, limit: int, *, said: str = ""
) -> InvalidInput | None:
    """Why an input with more tokens than the model reads at once cannot be read; None if it can.

    Args:
        total: tokens of the input.
        moving: of them, those that are cut, or that windows go over.
        one: what its parts are called.
        fit: what to do, other than to cut the longer of two texts.
        limit: tokens that the model reads at once.
        said: before the number of tokens.
    """
    if fit.long_text == "error":
        return _too_long(total, one, fit, limit, said)
    room = limit - (total - moving)
    if room <= (fit.stride if fit.long_text == "window" else 0):
        over_first = _is_over_first(one, fit)
        short, rest = (one.field, one.pair_field) if over_first else (one.pair_field, one.field)
        return _no_room(short, rest if one.pair is not None else "", room, fit, limit)
    if fit.long_text == "truncate":
        return None
    count, _ = sizes(moving, total - moving, room, fit.stride)
    if count <= MOST_WINDOWS:
        return None
    return InvalidInput(
        f"{_named(one)} {said}{total} tokens: {count} windows with a stride of {fit.stride}, and "
        f"an input may have {MOST_WINDOWS}: make stride smaller, or shorten the text",
        field="stride",
        reason="too_many",
        limit=MOST_WINDOWS,
    )


def whole(total: int) -> Plan:
    """All tokens of an input in one window."""
    return Plan(1, total, lambda: iter([np.arange(total)]))


def _without(total: int, *dropped: range) -> Plan:
    """One window, without some stretches of the input."""
    places = np.delete(np.arange(total), [place for part in dropped for place in part])
    return Plan(1, len(places), lambda: iter([places]))


def _windows(total: int, moving: range, room: int, fit: Fit) -> Plan:
    """Windows over `moving`, each with `room` tokens of it and all other tokens."""
    count, tokens = sizes(len(moving), total - len(moving), room, fit.stride)

    def places() -> Iterator[Int64Array]:
        for part in overlapping(moving, room, fit.stride):
            yield np.r_[0 : moving.start, part.start : part.stop, moving.stop : total]

    return Plan(count, tokens, places)


def sizes(moving: int, fixed: int, room: int, stride: int) -> tuple[int, int]:
    """How many windows there are over so many tokens, and how many tokens in all of them.

    Args:
        moving: tokens that windows go over.
        fixed: that each has besides.
        room: for those that move, in each.
        stride: that neighbours share.
    """
    count = -(-(moving - stride) // (room - stride))
    return count, count * fixed + moving + (count - 1) * stride


def _is_over_first(one: Input, fit: Fit) -> bool:
    """Whether the first text is cut, or read in windows, and not the second."""
    return one.pair is None or (fit.first_only and fit.long_text != "window")


def _too_long(total: int, one: Input, fit: Fit, limit: int, said: str = "") -> InvalidInput:
    return InvalidInput(
        f"{_named(one)} {said}{total} tokens, the model reads at most {limit}: shorten it, "
        f"or ask for truncation ({fit.remedy})",
        field=one.field if _is_over_first(one, fit) else one.pair_field,
        reason="too_long",
        limit=limit,
    )


def _no_room(short: str, rest: str, room: int, fit: Fit, limit: int) -> InvalidInput:
    """Why the field `short` cannot be cut, or read in windows, beside the field `rest`."""
    if room <= 0:
        return InvalidInput(
            f"{' and '.join(filter(None, (rest, 'the special tokens')))} have "
            f"{limit - room} tokens, which leaves no room for {short}, as the model "
            f"reads at most {limit}: {f'shorten {rest}' if rest else 'use another'}",
            field=rest or short,
            reason="too_long",
            limit=limit,
        )
    return InvalidInput(
        f"stride is {fit.stride} and a window has room for {room} tokens of {short}: "
        "make stride smaller",
        field="stride",
        reason="out_of_range",
        limit=room - 1,
    )


def _named(one: Input) -> str:
    """What has too many tokens, with its verb."""
    return f"{one.field} has" if one.pair is None else f"{one.field} and {one.pair_field} have"
