"""Tiny random checkpoints of many families, each with the kind of tokenizer that it comes with."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import torch
from bertd.bundle import Task
from bertd_export.checkpoint.tasks import loader
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "in", "rain", "sea", "안녕")
LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?"
VOCABULARY = 320  # at least the tokens of each kind below

ROBERTA: dict[str, Any] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
LONG = {"max_position_embeddings": 302}  # two of them may be reserved
SHALLOW = {"num_hidden_layers": 1}  # for the kin of a family that has two layers here
RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 16,
    **LONG,
    "type_vocab_size": 0,
    "pad_token_id": 0,
}

# model type -> kind of tokenizer, what differs from the common config
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("unigram", {"embedding_size": 16, "inner_group_num": 2, "pad_token_id": 0}),
    "bert": ("wordpiece", {}),
    "camembert": ("unigram", {**ROBERTA, **SHALLOW}),
    "data2vec-text": ("bpe", {**ROBERTA, **SHALLOW}),
    "deberta-v2": ("unigram", {**RELATIVE, "share_att_key": True}),
    "distilbert": ("wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "electra": ("wordpiece", {"embedding_size": 16}),
    "ernie": ("wordpiece", {"use_task_id": True, **SHALLOW}),
    "eurobert": ("bpe", {"num_key_value_heads": 2, "head_dim": 8, **ROBERTA}),
    "modernbert": (
        "bpe",
        {
            "local_attention": 16,
            **LONG,
            "global_attn_every_n_layers": 2,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
        },
    ),
    "mpnet": ("wordpiece", {"pad_token_id": 1, **LONG}),
    "nomic_bert": ("wordpiece", {"head_dim": 8}),
    "roberta": ("bpe", ROBERTA),
    "roberta-prelayernorm": ("bpe", {**ROBERTA, **SHALLOW}),
    "xlm-roberta": ("unigram", ROBERTA),
    "xlm-roberta-xl": ("unigram", {**ROBERTA, **SHALLOW}),
    "xmod": (
        "unigram",
        {
            "languages": ["en_XX", "ko_KR"],
            "default_language": "en_XX",
            **ROBERTA,
            **SHALLOW,
        },
    ),
}


def _special(kind: str, pad: int) -> list[str]:
    """Special tokens in the order of their ids."""
    if kind == "wordpiece":
        names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    else:
        names = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    if pad == 1:
        names[0], names[1] = names[1], names[0]
    return names


def _tokenizer(kind: str, pad: int, alphabet: str = "") -> Any:
    special = _special(kind, pad)
    letters = _letters(alphabet)
    model: Any
    if kind == "wordpiece":
        pieces = [*special, *WORDS, *letters, *(f"##{x}" for x in letters)]
        ids = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token=special[3]))
        tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment,unused-ignore]
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment,unused-ignore]
        tokenizer.decoder = decoders.WordPiece()  # type: ignore[assignment,unused-ignore]
    elif kind == "bpe":
        pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġa"]
        ids = {piece: number for number, piece in enumerate(pieces)}
        merges = [("t", "h"), ("th", "e"), ("Ġ", "a")]
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment,unused-ignore]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment,unused-ignore]
    else:
        pieces = [*special, "▁", *(f"▁{word}" for word in WORDS), *letters]
        scores = [(piece, -float(number) / 10) for number, piece in enumerate(pieces)]
        model = models.Unigram(scores, unk_id=special.index("<unk>"))
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.NFKC()  # type: ignore[assignment,unused-ignore]
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment,unused-ignore]
        tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment,unused-ignore]
        ids = {piece: number for number, piece in enumerate(pieces)}
    opening, closing, unknown, mask = special[1 - pad], *special[2:]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment,unused-ignore]
        single=f"{opening} $A {closing}",
        pair=f"{opening} $A {closing} $B:1 {closing}:1",
        special_tokens=[(opening, ids[opening]), (closing, ids[closing])],
    )
    fast: Any = PreTrainedTokenizerFast
    # Capitals are in the vocabulary of some, and read as small letters all the same: that is meant.
    stated = {"do_lower_case": True} if kind == "wordpiece" else {}
    return fast(
        tokenizer_object=tokenizer,
        pad_token=special[pad],
        cls_token=opening,
        sep_token=closing,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=1000,
        model_input_names=["input_ids", *["token_type_ids"] * (1 - pad), "attention_mask"],
        **stated,
    )


def kind_of_tokenizer(kind: str, alphabet: str = "") -> Tokenizer:
    """A "wordpiece", "bpe" or "unigram" tokenizer as these checkpoints have it."""
    tokenizer: Tokenizer = _tokenizer(kind, 0, alphabet).backend_tokenizer
    return tokenizer


def _letters(alphabet: str) -> list[str]:
    """The common letters, and those of a text in the forms to which tokenizers bring them."""
    forms = unicodedata.normalize("NFD", alphabet.lower()), unicodedata.normalize("NFKC", alphabet)
    return [*LETTERS, *sorted({*"".join(forms)} - {*LETTERS, *" \n▁"})]


def save_tiny(
    folder: Path,
    family: str,
    task: Task = "feature-extraction",
    *,
    alphabet: str = "",
    **changes: Any,
) -> Path:
    """Write a seeded random checkpoint of one or two layers; every parameter is jittered.

    Args:
        folder: where.
        family: model type, one of `FAMILIES` or of transformers.
        task: decides the head.
        alphabet: characters that are in the vocabulary too.
        changes: to the config.
    """
    kind, differences = FAMILIES.get(family, ("wordpiece", {}))
    tokenizer = _tokenizer(kind, int({**differences, **changes}.get("pad_token_id", 0)), alphabet)
    common = {
        "vocab_size": max(VOCABULARY, 1 + max(tokenizer.get_vocab().values())),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "initializer_range": 0.2,
        "type_vocab_size": 1 if differences.get("pad_token_id") == 1 else 2,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(family, **{**common, **differences, **changes})
    labels = changes.get("id2label")
    if labels:
        config.label2id = {label: number for number, label in labels.items()}
    torch.manual_seed(0)
    model = loader(task).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
