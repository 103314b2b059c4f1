"""What is known of the tokens of an input that are read: arrays in the place of an encoding.

A `tokenizers.Encoding` has hundreds of bytes for each token, of what is cut too; this has 18.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bertd.bundle.arrays import Int64Array
from numpy.typing import NDArray
from tokenizers import Encoding

NONE = -1
"""Of a token that no text, or no word, has."""

_NOWHERE = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """Tokens of an input, in its order, special ones included; an entry each.

    Attributes:
        ids: int32 `[tokens]`, in the vocabulary.
        offsets: int32 `[tokens, 2]`, code points in their own text with its prompt, ends
            exclusive; `[0, 0]` of special ones.
        special: bool `[tokens]`, whether the tokenizer added it.
        texts: int8 `[tokens]`, 0 of the first text, 1 of the second, :data:`NONE` of neither.
        words: int32 `[tokens]`, the number of its word in its text, :data:`NONE` of none.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]
    special: NDArray[np.bool_]
    texts: NDArray[np.int8]
    words: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def details_of(encoding: Encoding, places: Int64Array | None = None) -> Details:
    """Copy what is known of tokens out of an encoding.

    Whole lists of offsets would keep the interpreter for tens of ms where tokens are many; one
    token at a time lets the event loop have it in between.

    Args:
        encoding: with offsets, of a text or a pair.
        places: int64 `[tokens]`, of the tokens in the encoding; None for all of them.
    """
    chosen = np.arange(len(encoding)) if places is None else places
    numbers, points = chosen.tolist(), encoding.token_to_chars
    flat = (point for number in numbers for point in points(number) or _NOWHERE)
    return Details(
        np.array(encoding.ids, np.int32)[chosen],
        np.fromiter(flat, np.int32, 2 * len(numbers)).reshape(-1, 2),
        np.array(encoding.special_tokens_mask, np.bool_)[chosen],
        _numbered(encoding.sequence_ids, numbers).astype(np.int8),
        _numbered(encoding.word_ids, numbers),
    )


def _numbered(values: list[int | None], places: list[int]) -> NDArray[np.int32]:
    """Values at places, int32 `[places]`, :data:`NONE` for None."""
    found = (NONE if values[place] is None else values[place] for place in places)
    return np.fromiter(found, np.int32, len(places))
