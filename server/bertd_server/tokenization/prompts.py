"""Prompts whose tokens pooling leaves out: how many they are, in each window of a text.

::

    "query: " ──tokens_of──> 3 ──left_out──> windows whose sequences say how many of the 3 they have
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bertd.bundle.prompts import prompt_tokens
from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput

if TYPE_CHECKING:
    from bertd_server.tokenization.reader import Input, Reading


def tokens_of(tokenizer: Tokenizer, prompt: str, max_tokens: int) -> int:
    """How many tokens at the beginning of a text are those of its prompt."""
    added = tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    return prompt_tokens(tokenizer.encode(prompt).ids[:max_tokens], special)


def left_out(reading: Reading | InvalidInput, one: Input, count: int) -> Reading | InvalidInput:
    """A reading whose first tokens, so many, are not pooled; refused if a window has no others.

    Tokens that the caller has sent have no prompt.
    """
    if isinstance(reading, InvalidInput) or one.tokens is not None:
        return reading
    windows = []
    for window in reading.windows:
        leading = int((window.places < count).sum())
        if leading == len(window.sequence):
            return InvalidInput(
                f"{one.field} has no token beside those of its prompt, which this model leaves "
                "out of the vector: send a longer text, or name another prompt",
                field=one.field,
                tokens=reading.tokens,
                reason="empty",
            )
        windows.append(replace(window, sequence=replace(window.sequence, prompt_tokens=leading)))
    return replace(reading, windows=tuple(windows))
