"""Prompts whose tokens pooling leaves out: how many they are, in each window of a text.

::

    "query: " ──tokens_of──> 3 ──leading──> how many of the 3 a window has
"""

from __future__ import annotations

from bertd.bundle.arrays import Int64Array
from bertd.bundle.prompts import prompt_tokens
from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput


def tokens_of(tokenizer: Tokenizer, prompt: str, max_tokens: int) -> int:
    """How many tokens at the beginning of a text are those of its prompt."""
    added = tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    return prompt_tokens(tokenizer.encode(prompt).ids[:max_tokens], special)


def leading(places: Int64Array, count: int) -> int:
    """How many of a window's tokens, by their places in the input, are among its first `count`."""
    return int((places < count).sum()) if count else 0


def nothing_left(field: str, tokens: int) -> InvalidInput:
    """Why a text of so many tokens has no vector: a window of it has none but those of a prompt."""
    return InvalidInput(
        f"{field} has no token beside those of its prompt, which this model leaves "
        "out of the vector: send a longer text, or name another prompt",
        field=field,
        tokens=tokens,
        reason="empty",
    )
