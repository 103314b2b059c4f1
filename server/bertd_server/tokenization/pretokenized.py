"""Token sequences that callers have made themselves, read as if the tokenizer had made them.

::

    ids ──vocabulary──> tokens ──> a text that they could stand for, and their code points in it
                          └──────> special ones, and which of two texts each belongs to

Tasks work with code points. :meth:`GivenTokens.columns` turns these into places of tokens, which
is what such a caller knows.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertd_server.engine.packing import TokenSequence
from bertd_server.tokenization.details import NONE, Details

_WORD_STARTS = ("▁", "Ġ")  # how vocabularies of whole texts mark the beginning of a word


@dataclass(frozen=True)
class Pretokenized:
    """A sequence of tokens.

    Attributes:
        sequence: at least one token.
        tokenizer: of the model.
        first: place of the first token in the row that the caller sent.
    """

    sequence: TokenSequence
    tokenizer: Tokenizer
    first: int = 0

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def details(self) -> Details:
        """What is known of the tokens, as if the tokenizer had made them of :attr:`source`.

        The first text's are those before a separator; the vocabulary marks beginnings of words.
        """
        special = self._special
        begins = ~special & np.r_[True, special[:-1]]
        text = np.minimum(np.cumsum(begins) - 1, 1)
        return Details(
            self.sequence.input_ids.astype(np.int32),
            self._written.offsets,
            special,
            np.where(special, NONE, text).astype(np.int8),
            self._written.words,
        )

    @property
    def has_pair(self) -> bool:
        """Whether tokens of a second text are there."""
        special = self._special
        return int((~special & np.r_[True, special[:-1]]).sum()) > 1

    @cached_property
    def _special(self) -> NDArray[np.bool_]:
        return np.isin(self.sequence.input_ids, self.tokenizer.encode("", "").ids)

    @property
    def source(self) -> str:
        """A text that the tokens could stand for."""
        return self._written.text

    def columns(self, start: int, end: int) -> tuple[int, int]:
        """Places in the caller's row of the tokens that cover code points of :attr:`source`."""
        own, starts = self._starts
        begin = own[bisect_right(starts, start) - 1]
        last = own[bisect_right(starts, max(start, end - 1)) - 1]
        return self.first + begin, self.first + last + 1

    def text(self, start: int, end: int) -> str:
        """What the tokens at those places of the caller's row say."""
        ids = self.sequence.input_ids[max(0, start - self.first) : max(0, end - self.first)]
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        return text

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """Places of the tokens that are not special, and where each begins in the source."""
        own = np.flatnonzero(~self._special)
        return own.tolist(), self._written.offsets[own, 0].tolist()

    @cached_property
    def _written(self) -> _Written:
        """The tokens as a text; special ones are nowhere in it."""
        text, size = list[str](), 0
        offsets, words, word = list[tuple[int, int]](), list[int](), -1
        for id_, special in zip(
            self.sequence.input_ids.tolist(), self._special.tolist(), strict=True
        ):
            begins, part = _read(self.tokenizer, self.tokenizer.id_to_token(id_) or "")
            word += word < 0 or special or begins
            words.append(NONE if special else word)
            if special:
                offsets.append((0, 0))
                continue
            if begins and size:
                text.append(" ")
                size += 1
            text.append(part)
            offsets.append((size, size + len(part)))
            size += len(part)
        return _Written(
            "".join(text), np.array(offsets, np.int32).reshape(-1, 2), np.array(words, np.int32)
        )


class _Written(NamedTuple):
    """A text of tokens, and of each token its code points in it and the number of its word."""

    text: str
    offsets: NDArray[np.int32]
    words: NDArray[np.int32]


def _read(tokenizer: Tokenizer, token: str) -> tuple[bool, str]:
    """Whether a token begins a word, and what it adds to the text: at least one character."""
    model = tokenizer.model
    prefix = getattr(model, "continuing_subword_prefix", None)
    if prefix:
        return not token.startswith(prefix), token.removeprefix(prefix) or token or " "
    if token.startswith(_WORD_STARTS):
        return True, token[1:] or token
    return type(model).__name__ == "WordLevel", token or " "
