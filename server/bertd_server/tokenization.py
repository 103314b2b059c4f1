"""Texts to token sequences.

The tokenizer is read-only after loading: truncation and padding are switched off in it and done
here, so that threads share no mutable state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from bertd_server.errors import InvalidInput
from bertd_server.packing import TokenSequence


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text that the model can read, and how many tokens it had before truncation."""

    sequence: TokenSequence
    total_tokens: int


class TextTokenizer:
    """Turns texts into sequences of at most `max_tokens` tokens, special tokens included."""

    def __init__(self, path: Path, *, max_tokens: int, token_types: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._token_types = token_types

    def __call__(
        self, texts: Sequence[str], *, prompt: str = "", truncate: bool = False
    ) -> list[TokenizedText | InvalidInput]:
        """Tokenise texts, each with its own outcome, in order.

        Args:
            texts: the texts.
            prompt: put before each text.
            truncate: cut over-long texts, keeping the closing special tokens, rather than refuse.
        """
        outcomes: list[TokenizedText | InvalidInput] = []
        encodable = [_encodable(prompt + text) for text in texts]
        encodings = iter(self._tokenizer.encode_batch_fast([t for t in encodable if t is not None]))
        for index, text in enumerate(texts):
            field = f"texts[{index}]"
            if encodable[index] is None:
                outcomes.append(
                    InvalidInput(
                        f"{field} holds a lone surrogate, which is no Unicode character: "
                        "send valid UTF-8",
                        field=field,
                    )
                )
                continue
            outcomes.append(self._read(next(encodings), text, field, truncate=truncate))
        return outcomes

    def _read(
        self, encoding: Encoding, text: str, field: str, *, truncate: bool
    ) -> TokenizedText | InvalidInput:
        total = len(encoding)
        if not text.strip() or all(encoding.special_tokens_mask):
            return InvalidInput(
                f"{field} is empty: send a text with at least one token",
                field=field,
                tokens=total,
            )
        if total > self._max_tokens and not truncate:
            return InvalidInput(
                f"{field} has {total} tokens, the model reads at most {self._max_tokens}: "
                "shorten it, or ask for truncation (long_text = LONG_TEXT_POLICY_TRUNCATE)",
                field=field,
                tokens=total,
            )
        ids = np.array(encoding.ids, np.int64)
        types = np.array(encoding.type_ids, np.int64)
        if self._token_types == 1:
            types[:] = 0
        if total > self._max_tokens:
            kept = _kept_tokens(encoding.special_tokens_mask, self._max_tokens)
            ids, types = ids[kept], types[kept]
        return TokenizedText(TokenSequence(ids, types), total)


def _kept_tokens(special_tokens_mask: Sequence[int], limit: int) -> list[int]:
    """Positions that truncation to `limit` tokens keeps: the first, and the closing specials."""
    total = len(special_tokens_mask)
    closing = 0
    while special_tokens_mask[-1 - closing]:
        closing += 1
    return [*range(limit - closing), *range(total - closing, total)]


def _encodable(text: str) -> str | None:
    """The text, or None if it cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text
