"""Tokens and where they stand in a text, in Unicode code points and in bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bertd.bundle.arrays import Int64Array


@dataclass(frozen=True, slots=True)
class Offsets:
    """A stretch of a text, ends exclusive: `text[start:end]`, and the same in bytes of UTF-8."""

    start: int = 0
    end: int = 0
    start_byte: int = 0
    end_byte: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its id, how the vocabulary writes it, its code points, and who put it there.

    Attributes:
        id: in the vocabulary.
        token: as the vocabulary writes it.
        start: first code point in its text; equal to `end` for special tokens.
        end: after the last one.
        special: whether the tokenizer added it.
        second: whether it is of the second text of a pair.
    """

    id: int
    token: str
    start: int
    end: int
    special: bool
    second: bool = False


class Places:
    """Code points of one text to bytes of its UTF-8."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes = None if text.isascii() else _byte_positions(text)

    def offsets(self, start: int, end: int) -> Offsets:
        """A stretch in both units."""
        if self._bytes is None:
            return Offsets(start, end, start, end)
        return Offsets(start, end, int(self._bytes[start]), int(self._bytes[end]))


def _byte_positions(text: str) -> Int64Array:
    """Bytes before each code point, and after the last one."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    positions = np.zeros(len(text) + 1, np.int64)
    np.cumsum(sizes, out=positions[1:])
    return positions
