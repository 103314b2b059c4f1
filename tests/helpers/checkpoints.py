"""Random checkpoints of every family and head, with a vocabulary of a hundred words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(95))]

MASK = 4

NLI = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}

SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}

OWN: dict[str, dict[str, Any]] = {
    "Roberta": {"pad_token_id": 0, "max_position_embeddings": 65},
    "Electra": {"embedding_size": 16},
    "Albert": {"embedding_size": 16},
}


def save_checkpoint(folder: Path, family: str, head: str, **config: Any) -> Any:
    """A random model with a tokenizer; biases and LayerNorm are random too."""
    torch.manual_seed(0)
    options = {**SIZES, **OWN.get(family, {}), **config}
    model = getattr(transformers, family + head)(
        getattr(transformers, f"{family}Config")(**options)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return model
