"""The reference: the stock model in PyTorch eager, one text at a time, pooling written plainly."""

from collections.abc import Iterable
from typing import Any

import torch
from bertd.bundle import POOLER_OUTPUT, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs, TokenizedText
from bertd_export.graph.trace import quiet


def _embeddings(checkpoint: Checkpoint, output: Any, prompt_tokens: int) -> TextOutputs:
    """Pooling in plain PyTorch, and what follows it."""
    every = output.last_hidden_state[0]
    rows = every[prompt_tokens:]
    places = torch.arange(1, len(every) + 1, dtype=rows.dtype)[prompt_tokens:, None]
    vectors = []
    for mode in checkpoint.pooling:
        if mode == "cls":
            vectors.append(rows[0])
        elif mode == "lasttoken":
            vectors.append(rows[-1])
        elif mode == "max":
            vectors.append(rows.max(dim=0).values)
        elif mode == "mean":
            vectors.append(rows.mean(dim=0))
        elif mode == "weightedmean":
            vectors.append((rows * places).sum(dim=0) / places.sum())
        else:
            vectors.append(rows.sum(dim=0) / len(rows) ** 0.5)
    pooled = torch.cat(vectors)[None]
    for module in checkpoint.after_pooling:
        pooled = module(pooled)
    outputs = {SENTENCE_EMBEDDING: pooled.numpy(), TOKEN_EMBEDDINGS: every.numpy()}
    if POOLER_OUTPUT in checkpoint.outputs:
        outputs[POOLER_OUTPUT] = output.pooler_output.numpy()
    return outputs


def _eager(checkpoint: Checkpoint, text: TokenizedText) -> TextOutputs:
    """The stock model on one text, with its own positions."""
    ids = torch.from_numpy(text.ids)[None]
    options = {"attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in checkpoint.inputs:
        options["token_type_ids"] = torch.from_numpy(text.types)[None]
    with torch.inference_mode():
        output = checkpoint.model(input_ids=ids, **options)
        if checkpoint.task == "feature-extraction":
            return _embeddings(checkpoint, output, text.prompt_tokens)
        outputs = {}
        for name, rows in checkpoint.outputs.items():
            logits = output[name] if rows == "sequences" else output[name][0]
            if rows == "masks":
                logits = logits[ids[0] == checkpoint.head.mask_token_id]
            outputs[name] = logits.numpy()
    return outputs


def eager_outputs(checkpoint: Checkpoint, texts: Iterable[TokenizedText]) -> list[TextOutputs]:
    """Every output of the stock model for each text, in order, one text at a time."""
    with quiet():
        try:
            checkpoint.model.set_attn_implementation("sdpa")
        except (ValueError, ImportError):
            checkpoint.model.set_attn_implementation("eager")
        return [_eager(checkpoint, text) for text in texts]
