"""Tokens and where they stand in a text, in Unicode code points and in bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bertd.bundle.arrays import Int64Array
from tokenizers import Tokenizer

from bertd_server.tokenization.details import Details

_SECOND = 1


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


def tokens_of(details: Details, vocabulary: Tokenizer, *, shift: int = 0) -> list[Token]:
    """Tokens, as the vocabulary writes them.

    Args:
        details: of a text or a pair.
        vocabulary: writes each token.
        shift: code points of a prompt before the text; its tokens have no place in the text.
    """
    write = vocabulary.id_to_token
    return [
        Token(id_, write(id_) or "", start, end, special, which == _SECOND)
        for id_, (start, end), special, which in zip(
            details.ids.tolist(),
            np.maximum(details.offsets - shift, 0).tolist(),
            details.special.tolist(),
            details.texts.tolist(),
            strict=True,
        )
    ]


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
