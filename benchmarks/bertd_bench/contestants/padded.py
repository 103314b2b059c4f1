"""What peers that run a graph or a network themselves share: padded ids in, pooled rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertd_bench.contestants.peer import EMBED, TAG, AnswerTexts, Setting, TextArrays

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
# Takes ids, mask and types, [texts, longest]; gives the last hidden state, or logits.
ForwardPass = Callable[[Int64, Int64, Int64], Float32]


def tokenizer_of(setting: Setting) -> Any:
    """The checkpoint's fast tokenizer, that pads a batch to its longest text."""
    import json

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(setting.checkpoint) / "tokenizer.json"))
    config = json.loads((Path(setting.checkpoint) / "config.json").read_text(encoding="utf-8"))
    pad = config.get("pad_token_id") or 0
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad) or "[PAD]")
    tokenizer.enable_truncation(config["max_position_embeddings"])
    return tokenizer


def pooled(hidden: Float32, mask: Int64) -> Float32:
    """Mean over real tokens, then normalised: [texts, hidden]."""
    weights = mask.astype(np.float32)
    sums = np.einsum("nth,nt->nh", hidden, weights, optimize=False)
    means = sums / weights.sum(1, keepdims=True)
    vectors: Float32 = means / np.linalg.norm(means, axis=1, keepdims=True)
    return vectors


def finished(values: Float32, mask: Int64, task: str) -> TextArrays:
    """One array a text, of a model's output over padded texts."""
    if task == EMBED:
        return pooled(values, mask)
    if task == TAG:
        return [row[: int(real.sum())] for row, real in zip(values, mask, strict=True)]
    return values


def answering(setting: Setting, run: ForwardPass) -> AnswerTexts:
    """Texts to arrays, by way of a padded batch."""
    tokenizer = tokenizer_of(setting)

    def answer(texts: Sequence[str]) -> TextArrays:
        encodings = tokenizer.encode_batch_fast(list(texts))
        ids = np.array([each.ids for each in encodings], np.int64)
        mask = np.array([each.attention_mask for each in encodings], np.int64)
        types = np.array([each.type_ids for each in encodings], np.int64)
        return finished(run(ids, mask, types), mask, setting.task)

    return answer
