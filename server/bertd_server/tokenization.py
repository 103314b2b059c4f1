"""Texts to token sequences.

The tokenizer is read-only after loading: truncation and padding are switched off in it and done
here, so that threads share no mutable state.
"""

from __future__ import annotations

import sys
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

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int,
        token_types: int,
        max_characters: int = sys.maxsize,
    ) -> None:
        """Load a tokenizer.

        Args:
            path: of tokenizer.json.
            max_tokens: of a sequence.
            token_types: that the model knows.
            max_characters: of a text; a longer one is refused before it is encoded. Truncation
                comes after encoding, so that without a limit one text can fill the memory.
        """
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._token_types = token_types
        self._max_characters = max_characters

    def __call__(
        self, texts: Sequence[str], *, prompt: str = "", truncate: bool = False, first: int = 0
    ) -> list[TokenizedText | InvalidInput]:
        """Tokenise texts, each with its own outcome, in order.

        Args:
            texts: the texts.
            prompt: put before each text.
            truncate: cut over-long texts, keeping the closing special tokens, rather than refuse.
            first: index in the call of the first of them; errors name texts by their index.
        """
        checked = [
            self._check(prompt, text, f"texts[{index}]") for index, text in enumerate(texts, first)
        ]
        good = [one for one in checked if isinstance(one, str)]
        encodings = iter(self._tokenizer.encode_batch_fast(good))
        return [
            self._read(next(encodings), text, f"texts[{index}]", truncate=truncate)
            if isinstance(one, str)
            else one
            for index, (text, one) in enumerate(zip(texts, checked, strict=True), first)
        ]

    def _check(self, prompt: str, text: str, field: str) -> str | InvalidInput:
        """What to encode, or why the text cannot be."""
        if len(text) > self._max_characters:
            return InvalidInput(
                f"{field} has {len(text)} characters, the server reads at most "
                f"{self._max_characters} of a text: send its beginning alone (the model reads at "
                f"most {self._max_tokens} tokens), or have the server started with a larger "
                "--max-text-characters",
                field=field,
            )
        whole = prompt + text
        try:
            whole.encode()
        except UnicodeEncodeError:
            return InvalidInput(
                f"{field} holds a lone surrogate, which is no Unicode character: send valid UTF-8",
                field=field,
            )
        return whole

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
