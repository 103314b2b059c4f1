"""A text on its way through a model: what goes in, and what comes out of it."""

from dataclasses import dataclass

import numpy as np
import tokenizers
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd.bundle.prompts import prompt_tokens

from bertd_export.checkpoint.loading import Checkpoint

TextOutputs = dict[str, Float32Array]
"""What a model answers to one text: every output by its name, float32 ``[rows, …]``."""


@dataclass(frozen=True)
class TokenizedText:
    """Token ids and token types of one sequence, int64 ``[tokens]`` each.

    ``prompt_tokens`` at the beginning are a prompt's, where pooling leaves these out; else 0.
    """

    ids: Int64Array
    types: Int64Array
    prompt_tokens: int = 0


def as_read(
    encoding: tokenizers.Encoding,
    checkpoint: Checkpoint,
    *,
    longest: int | None = None,
    prompt: str = "",
) -> TokenizedText:
    """An encoding as the checkpoint's model reads it: cut, with the token types that it knows.

    Args:
        encoding: from a tokenizer.
        checkpoint: of the model, which says how many tokens and token types there may be.
        longest: fewer tokens than the model reads at most.
        prompt: with which the text begins.
    """
    cut = slice(checkpoint.max_tokens if longest is None else min(longest, checkpoint.max_tokens))
    types = np.array(encoding.type_ids[cut], np.int64)
    if not checkpoint.rules.token_types:
        types[:] = 0
    return TokenizedText(
        np.array(encoding.ids[cut], np.int64),
        np.minimum(types, checkpoint.type_vocab_size - 1),
        left_out(prompt, checkpoint),
    )


def left_out(prompt: str, checkpoint: Checkpoint) -> int:
    """How many tokens of a text with that prompt pooling leaves out."""
    if checkpoint.include_prompt or not prompt:
        return 0
    added = checkpoint.tokenizer.get_added_tokens_decoder()
    ids = checkpoint.tokenizer.encode(prompt).ids[: checkpoint.max_tokens]
    return prompt_tokens(ids, {number for number, token in added.items() if token.special})
