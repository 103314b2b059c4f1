"""Checkpoints with random weights: real families at real sizes, without a download.

Speed and parity do not depend on what a model has learned. Weights are drawn so that a linear
layer keeps the variance of its input: logits then differ from text to text, and parity means
something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from bertd.bundle import Task
from bertd_export.checkpoint.tasks import loader
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from bertd_bench.harness.texts import WORDS


class Size(NamedTuple):
    """What a model's cost depends on."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


SIZES = {
    "tiny": Size(32, 2, 4, 64),
    "mini": Size(384, 6, 12, 1_536),
    "base": Size(768, 12, 12, 3_072),
    "large": Size(1_024, 24, 16, 4_096),
}

VOCABULARY = 30_522
POSITIONS = 512
# A config's names of the fields of a size.
_USUAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_DISTILBERT = ("dim", "n_layers", "n_heads", "hidden_dim")
_LABELS: dict[Task, int] = {"text-classification": 3, "text-ranking": 1, "token-classification": 9}
_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# What a family's config needs besides the size to be the model that people use.
_BERT_LIKE: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 128},
    "bert": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "distilbert": {},
    "electra": {},
    "ernie": {"use_task_id": True},
    "modernbert": {"local_attention": 128, "global_attn_every_n_layers": 3},
    "nomic_bert": {},
}
_ONE_TYPE = {"type_vocab_size": 1}
_ROBERTA_LIKE: dict[str, dict[str, Any]] = {
    "camembert": _ONE_TYPE,
    "data2vec-text": _ONE_TYPE,
    "eurobert": {},
    "mpnet": {},
    "roberta": _ONE_TYPE,
    "roberta-prelayernorm": _ONE_TYPE,
    "xlm-roberta": _ONE_TYPE,
    "xlm-roberta-xl": _ONE_TYPE,
    "xmod": {**_ONE_TYPE, "languages": ["en_XX", "ko_KR"], "default_language": "en_XX"},
}
_OPTIONS = {**_BERT_LIKE, **_ROBERTA_LIKE}
FAMILIES: tuple[str, ...] = tuple(sorted(_OPTIONS))


def _config(family: str, size: Size) -> Any:
    roberta = family in _ROBERTA_LIKE
    cls, pad, sep = (0, 1, 2) if roberta else (2, 0, 3)
    options: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS + (2 if roberta else 0),
        "initializer_range": size.hidden**-0.5,
        "pad_token_id": pad,
        "bos_token_id": cls,
        "eos_token_id": sep,
    }
    options |= dict(zip(_DISTILBERT if family == "distilbert" else _USUAL, size, strict=True))
    if family == "electra":
        options["embedding_size"] = size.hidden
    if family in {"eurobert", "nomic_bert"}:
        options["head_dim"] = size.hidden // size.heads
    if family == "eurobert":
        options["num_key_value_heads"] = size.heads // 2
    if family == "modernbert":
        options |= {"cls_token_id": cls, "sep_token_id": sep}
    return AutoConfig.for_model(family, **options, **_OPTIONS[family])


def _tokenizer(*, roberta: bool) -> PreTrainedTokenizerFast:
    special = _ROBERTA_TOKENS if roberta else _BERT_TOKENS
    cls, pad, sep, unk = (0, 1, 2, 3) if roberta else (2, 0, 3, 1)
    words = [*special, *WORDS]
    words += [f"word{number}" for number in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=special[unk])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment,unused-ignore]
    first, last = special[cls], special[sep]
    pair_type = 0 if roberta else 1
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment,unused-ignore]
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:{pair_type} {last}:{pair_type}",
        special_tokens=[(first, cls), (last, sep)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call,unused-ignore]
        tokenizer_object=tokenizer,
        unk_token=special[unk],
        pad_token=special[pad],
        cls_token=first,
        sep_token=last,
        mask_token=special[4],
    )


def save_random(family: str, task: Task, size: str, folder: Path, *, seed: int = 0) -> None:
    """Write a checkpoint with seeded random weights and a tokenizer that fits it.

    Args:
        family: one of `FAMILIES`.
        task: decides the head.
        size: one of `SIZES`.
        folder: made here.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    config = _config(family, SIZES[size])
    if task in _LABELS:
        config.num_labels = _LABELS[task]
    model = loader(task).from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero in a new model, which would hide a lost bias
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    _tokenizer(roberta=family in _ROBERTA_LIKE).save_pretrained(folder)
