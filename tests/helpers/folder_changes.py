"""What somebody may write into a checkpoint's folder: settings, files, tensors.

A change knows by which names a refusal may call it: its key, its value or its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

Kind = Literal[
    "encoder", "sentence", "sparse", "classifier", "cross-encoder", "tagger", "reader", "filler"
]

WIDTH = 32
MODEL = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer_config.json"
SENTENCE = "config_sentence_transformers.json"
LIMITS = "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
PROMPTS = {"query": "the query: ", "passage": "the sea "}


@dataclass(frozen=True)
class Change:
    """What somebody does to a folder; `slot` is what only one change may have."""

    label: str
    slot: str
    names: tuple[str, ...]
    write: Callable[[Path], None]

    def __repr__(self) -> str:
        return self.label


def put(path: Path, **entries: Any) -> None:
    """Add entries to a JSON file, which may not be there yet."""
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**held, **entries}, indent=2), encoding="utf-8")


def setting(file: str, key: str, value: Any, *names: str) -> Change:
    """A key of one of the JSON files gets a value."""
    return Change(
        f"{file}: {key} = {value!r}",
        f"{file}/{key}",
        (key, *names, *((value,) if isinstance(value, str) else ())),
        lambda folder: put(folder / file, **{key: value}),
    )


def tensors(label: str, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """The weights become others; `name` is what a refusal has to say."""

    def write(folder: Path) -> None:
        path = folder / MODEL
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return Change(label, MODEL, (name,), write)


def _without_tokenizer_json(folder: Path) -> None:
    """WordPiece's vocab.txt alone; nothing where the tokenizer is another."""
    path = folder / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    if model["type"] == "WordPiece":
        words = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        path.unlink()


def _old_booleans(folder: Path) -> None:
    """As sentence-transformers wrote the modes before they had names."""
    modes = {"cls_token": True, "mean_tokens": True, "max_tokens": False}
    (folder / POOLING).unlink()
    put(
        folder / POOLING,
        word_embedding_dimension=WIDTH,
        **{f"pooling_mode_{mode}": chosen for mode, chosen in modes.items()},
    )


def _first_layer(held: dict[str, Any]) -> str:
    return next(name for name in held if ".0." in name or "layers" in name or "groups" in name)


def file(name: str, content: Any, *names: str) -> Change:
    """A JSON file more."""
    return Change(
        f"{name} = {content!r}", name, (name, *names), lambda folder: put(folder / name, **content)
    )


NAMES = ["input_ids", "token_type_ids", "attention_mask"]
OF_ALL: tuple[Change, ...] = (
    *(
        setting(TOKENIZER, "model_input_names", names, "token_type_ids")
        for names in (NAMES, [NAMES[0], NAMES[2]], [NAMES[0]])
    ),
    *(
        setting(TOKENIZER, "tokenizer_class", name, "vocab.txt", "tokenizer.json")
        for name in (
            "BertTokenizer",
            "BertTokenizerFast",
            "PreTrainedTokenizerFast",
            "RobertaTokenizer",
            "AlbertTokenizer",
            "BertJapaneseTokenizer",
            None,
        )
    ),
    *(setting(TOKENIZER, "do_lower_case", value) for value in (True, False)),
    setting(TOKENIZER, "strip_accents", False),
    setting(TOKENIZER, "tokenize_chinese_chars", False),
    setting(TOKENIZER, "add_prefix_space", True),
    setting(TOKENIZER, "padding_side", "left"),
    setting(TOKENIZER, "truncation_side", "left"),
    *(setting(TOKENIZER, "model_max_length", value) for value in (12, 512, 10**30)),
    setting(TOKENIZER, "auto_map", {"AutoTokenizer": ["tokenization.Mine", None]}),
    setting(TOKENIZER, "additional_special_tokens", ["[Q]"], "'[Q]'"),
    setting(TOKENIZER, "extra_special_tokens", ["dog"], "'dog'"),
    setting(TOKENIZER, "chat_template", "{{ messages }}"),
    setting(TOKENIZER, "flavour", "sweet"),
    Change(
        "vocab.txt alone", "tokenizer.json", ("vocab.txt", "tokenizer"), _without_tokenizer_json
    ),
    *(
        setting(CONFIG, "position_embedding_type", value)
        for value in ("absolute", "relative_key", "relative_key_query")
    ),
    setting(CONFIG, "hidden_act", "relu"),
    setting(CONFIG, "layer_norm_eps", 0.1),
    setting(CONFIG, "chunk_size_feed_forward", 4),
    setting(CONFIG, "pruned_heads", {"0": [1]}),
    setting(CONFIG, "is_decoder", True),
    setting(CONFIG, "add_cross_attention", True, "cross attention"),
    setting(CONFIG, "output_hidden_states", True),
    setting(CONFIG, "output_attentions", True),
    setting(CONFIG, "return_dict", False),
    setting(CONFIG, "torchscript", True),
    setting(CONFIG, "tie_word_embeddings", False),
    setting(CONFIG, "max_position_embeddings", 40),
    setting(CONFIG, "type_vocab_size", 1, "token_type"),
    setting(CONFIG, "type_vocab_size", 3, "token_type"),
    setting(CONFIG, "vocab_size", 100),
    setting(CONFIG, "num_hidden_layers", 0),
    setting(CONFIG, "num_hidden_layers", 2, "lacks weights"),
    setting(CONFIG, "hidden_dropout_prob", 0.5),
    setting(CONFIG, "quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    setting(CONFIG, "tokenizer_class", "RobertaTokenizer"),
    setting(CONFIG, "model_type", "bert", "lacks weights"),
    setting(CONFIG, "auto_map", {"AutoModel": "modeling.Mine"}),
    setting(CONFIG, "use_mean_pooling", True),
    setting(CONFIG, "attn_implementation", "eager"),
    file("adapter_config.json", {"peft_type": "LORA", "r": 4}),
    file("config_setfit.json", {"labels": ["a", "b"]}),
    file("generation_config.json", {"max_length": 20}),
    file("special_tokens_map.json", {"unk_token": "the"}, "'the'"),
    file("added_tokens.json", {"dog": 13}),
    tensors("a stray tensor in a layer", "extra", lambda held: {
        **held, _first_layer(held) + "_extra": torch.ones(4)}),
    tensors("a stray head", "cls.other.weight", lambda held: {
        **held, "cls.other.weight": torch.ones(4)}),
    tensors("weights below module.", "module.", lambda held: {
        f"module.{name}": value for name, value in held.items()}),
    tensors("weights in fp16", "float16", lambda held: {
        name: one.half() if one.is_floating_point() else one for name, one in held.items()}),
)  # fmt: skip
OF_SENTENCES: tuple[Change, ...] = (
    setting(SENTENCE, "prompts", PROMPTS),
    setting(SENTENCE, "truncate_dim", 8),
    setting(SENTENCE, "truncate_dim", None),
    setting(SENTENCE, "similarity_fn_name", "dot"),
    setting(SENTENCE, "similarity_fn_name", None),
    setting(SENTENCE, "flavour", "sweet"),
    setting(SENTENCE, "model_type", "CrossEncoder"),
    setting(SENTENCE, "model_type", "SparseEncoder"),
    setting(LIMITS, "max_seq_length", 12),
    setting(LIMITS, "max_seq_length", None),
    setting(LIMITS, "max_seq_length", 512),
    setting(LIMITS, "do_lower_case", True),
    setting(LIMITS, "processing_kwargs", {"text": {"add_special_tokens": False}}),
    setting(LIMITS, "unpad_inputs", False),
    setting(LIMITS, "model_args", {"attn_implementation": "eager"}),
    setting(LIMITS, "tokenizer_args", {"do_lower_case": False}),
    setting(LIMITS, "flavour", "sweet"),
)
OF_POOLING: tuple[Change, ...] = (
    *(
        setting(POOLING, "pooling_mode", value)
        for value in (
            "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", ["cls", "mean"],
            ["mean", "cls", "max"],
        )
    ),
    setting(POOLING, "include_prompt", False),
    setting(POOLING, "pooling_mode_cls_token", True),
    Change(
        "old pooling booleans", f"{POOLING}/pooling_mode", ("pooling_mode",),
        _old_booleans,
    ),
    Change(
        "a default prompt", f"{SENTENCE}/prompts", ("prompts", "default_prompt_name"),
        lambda folder: put(folder / SENTENCE, prompts=PROMPTS, default_prompt_name="query"),
    ),
    setting(SENTENCE, "default_prompt_name", "none such"),
    setting("2_Dense/config.json", "activation_function", "torch.nn.modules.activation.ReLU"),
    setting("2_Dense/config.json", "activation_function", "mine.Activation"),
    setting("2_Dense/config.json", "module_output_name", "token_embeddings"),
    setting("2_Dense/config.json", "use_residual", True),
)  # fmt: skip
OF_LABELS: tuple[Change, ...] = (
    setting(CONFIG, "id2label", {"0": "a", "1": "b"}, "labels", "num_labels"),
    setting(CONFIG, "id2label", {"0": "a", "2": "b"}, "labels", "num_labels"),
    setting(CONFIG, "id2label", {"0": "same", "1": "same", "2": "same"}, "labels", "num_labels"),
    setting(CONFIG, "id2label", None, "labels", "num_labels"),
    setting(CONFIG, "label2id", {"b": 0, "a": 1}, "labels"),
    setting(CONFIG, "num_labels", 50, "labels"),
    setting(CONFIG, "classifier_dropout", 0.5),
    *(
        setting(CONFIG, "problem_type", value)
        for value in (
            "single_label_classification", "multi_label_classification", "regression", "ranking",
        )
    ),
    setting(CONFIG, "function_to_apply", "none"),
    setting(CONFIG, "task_specific_params", {"text-classification": {"function_to_apply": "none"}}),
)  # fmt: skip
OF_RANKING: tuple[Change, ...] = (
    setting(SENTENCE, "activation_fn", "torch.nn.modules.linear.Identity"),
    setting(SENTENCE, "activation_fn", "torch.nn.modules.activation.Sigmoid"),
    setting(SENTENCE, "activation_fn", "torch.nn.modules.activation.Tanh"),
    setting(SENTENCE, "activation_fn", "mine.Activation"),
    setting(CONFIG, "sentence_transformers", {"activation_fn": "torch.nn.modules.linear.Identity"},
            "activation_fn"),
    setting(CONFIG, "sbert_ce_default_activation_function", "torch.nn.modules.linear.Identity"),
    Change(
        "a default prompt", f"{SENTENCE}/prompts", ("prompts", "default_prompt_name"),
        lambda folder: put(folder / SENTENCE, prompts=PROMPTS, default_prompt_name="query"),
    ),
)  # fmt: skip
OF_SPARSE: tuple[Change, ...] = (
    setting("1_SpladePooling/config.json", "pooling_strategy", "sum"),
    setting("1_SpladePooling/config.json", "activation_function", "log1p_relu"),
    setting("1_SpladePooling/config.json", "activation_function", "tanh"),
    setting(SENTENCE, "max_active_dims", 7),
    Change(
        "a default prompt", f"{SENTENCE}/prompts", ("prompts", "default_prompt_name"),
        lambda folder: put(folder / SENTENCE, prompts=PROMPTS, default_prompt_name="query"),
    ),
)  # fmt: skip
CHANGES: dict[Kind, tuple[Change, ...]] = {
    "encoder": OF_ALL,
    "sentence": (*OF_SENTENCES, *OF_POOLING, *OF_ALL),
    "sparse": (*OF_SPARSE, *OF_SENTENCES, *OF_ALL),
    "classifier": (*OF_LABELS, *OF_ALL),
    "cross-encoder": (*OF_LABELS, *OF_RANKING, *OF_ALL),
    "tagger": (*OF_LABELS, *OF_ALL),
    "reader": OF_ALL,
    "filler": OF_ALL,
}
