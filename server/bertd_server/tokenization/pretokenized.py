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

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertd_server.engine.packing import TokenSequence

_WORD_STARTS = ("▁", "Ġ")  # how vocabularies of whole texts mark the beginning of a word


@dataclass(frozen=True)
class Pretokenized:
    """A sequence of tokens; has what tasks read of a `tokenizers.Encoding`.

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
    def ids(self) -> list[int]:
        """Of the tokens."""
        ids: list[int] = self.sequence.input_ids.tolist()
        return ids

    @property
    def type_ids(self) -> list[int]:
        """Of the tokens."""
        types: list[int] = self.sequence.token_type_ids.tolist()
        return types

    @cached_property
    def tokens(self) -> list[str]:
        """As the vocabulary writes them; empty for an id that it does not use."""
        return [self.tokenizer.id_to_token(id_) or "" for id_ in self.ids]

    @cached_property
    def special_tokens_mask(self) -> list[int]:
        """1 for each token that the tokenizer adds to a text or a pair."""
        mask: list[int] = self._special.astype(int).tolist()
        return mask

    @cached_property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the first text, 1 for what follows a separator, None for special ones."""
        special = self._special
        begins = ~special & np.r_[True, special[:-1]]
        text = np.minimum(np.cumsum(begins) - 1, 1)
        return [
            None if none else which
            for none, which in zip(special.tolist(), text.tolist(), strict=True)
        ]

    @cached_property
    def word_ids(self) -> list[int | None]:
        """Number of each token's word; None for special ones. The vocabulary marks beginnings."""
        word, found = -1, list[int | None]()
        for token, special in zip(self.tokens, self.special_tokens_mask, strict=True):
            word += word < 0 or bool(special) or _read(self.tokenizer, token)[0]
            found.append(None if special else word)
        return found

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
        return self._written[0]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Code points of each token in :attr:`source`; none for special ones."""
        return self._written[1]

    def columns(self, start: int, end: int) -> tuple[int, int]:
        """Places in the caller's row of the tokens that cover code points of :attr:`source`."""
        own, starts = self._starts
        begin = own[bisect_right(starts, start) - 1]
        last = own[bisect_right(starts, max(start, end - 1)) - 1]
        return self.first + begin, self.first + last + 1

    def text(self, start: int, end: int) -> str:
        """What the tokens at those places of the caller's row say."""
        ids = self.ids[max(0, start - self.first) : max(0, end - self.first)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """Places of the tokens that are not special, and where each begins in the source."""
        own = np.flatnonzero(~self._special).tolist()
        return own, [self.offsets[place][0] for place in own]

    @cached_property
    def _written(self) -> tuple[str, list[tuple[int, int]]]:
        text, offsets = "", []
        for token, special in zip(self.tokens, self.special_tokens_mask, strict=True):
            if special:
                offsets.append((0, 0))
                continue
            begins, word = _read(self.tokenizer, token)
            text += " " * (begins and bool(text))
            offsets.append((len(text), len(text) + len(word)))
            text += word
        return text, offsets


def _read(tokenizer: Tokenizer, token: str) -> tuple[bool, str]:
    """Whether a token begins a word, and what it adds to the text: at least one character."""
    model = tokenizer.model
    prefix = getattr(model, "continuing_subword_prefix", None)
    if prefix:
        return not token.startswith(prefix), token.removeprefix(prefix) or token or " "
    if token.startswith(_WORD_STARTS):
        return True, token[1:] or token
    return type(model).__name__ == "WordLevel", token or " "
