"""Tokens and where they stand in a text, in Unicode code points and in bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bertd.bundle.arrays import Int64Array
from tokenizers import Encoding, Tokenizer

from bertd_server.tokenization.pretokenized import Pretokenized


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


def tokens_of(
    encoding: Encoding | Pretokenized, *, shift: int = 0, vocabulary: Tokenizer | None = None
) -> list[Token]:
    """The tokens of an encoding with offsets.

    Args:
        encoding: of a text or a pair.
        shift: code points of a prompt before the text; its tokens have no place in the text.
        vocabulary: writes each token; without it, an unknown one may be as the text has it.
    """
    written = (
        encoding.tokens
        if vocabulary is None
        else [vocabulary.id_to_token(id_) or "" for id_ in encoding.ids]
    )
    return [
        Token(id_, token, max(0, start - shift), max(0, end - shift), bool(special), which == 1)
        for id_, token, (start, end), special, which in zip(
            encoding.ids,
            written,
            encoding.offsets,
            encoding.special_tokens_mask,
            encoding.sequence_ids,
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
