"""The tokens of a text as arrays: each becomes an object when it is looked at, and no earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
from bertd.bundle.arrays import Int64Array
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertd_server.tokenization.details import Details
from bertd_server.tokenization.tokens import Token

_SECOND = 1


@dataclass(frozen=True, slots=True, eq=False)
class TokenList(Sequence[Token]):
    """Tokens, as a list has them.

    Attributes:
        ids: int32 `[tokens]`.
        offsets: int32 `[tokens, 2]`, code points.
        special: bool `[tokens]`, whether the tokenizer added it.
        second: bool `[tokens]`, whether it is of the second text of a pair.
        vocabulary: writes each token.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]
    special: NDArray[np.bool_]
    second: NDArray[np.bool_]
    vocabulary: Tokenizer

    @classmethod
    def of(
        cls,
        details: Details,
        vocabulary: Tokenizer,
        *,
        shift: int = 0,
        places: Int64Array | None = None,
    ) -> Self:
        """Tokens, as the vocabulary writes them.

        Args:
            details: of a text or a pair.
            vocabulary: writes each token.
            shift: code points of a prompt before the text; its tokens have no place in the text.
            places: int64 `[tokens]`, of those that are wanted; None for all.
        """
        chosen = slice(None) if places is None else places
        offsets = details.offsets[chosen]
        return cls(
            details.ids[chosen],
            np.maximum(0, offsets - shift) if shift else offsets,
            details.special[chosen],
            details.texts[chosen] == _SECOND,
            vocabulary,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Token: ...

    @overload
    def __getitem__(self, place: slice) -> list[Token]: ...

    def __getitem__(self, place: int | slice) -> Token | list[Token]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        id_, (start, end) = int(self.ids[place]), self.offsets[place].tolist()
        written = self.vocabulary.id_to_token(id_) or ""
        special, second = bool(self.special[place]), bool(self.second[place])
        return Token(id_, written, start, end, special, second)
