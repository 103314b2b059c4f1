"""Values of another kind than a key can have are refused by file and key; real ones are not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bertd_export.checkpoint.kinds import (
    ADAPTER,
    CONFIG,
    SENTENCE,
    TOKENIZER,
    TRANSFORMER,
    Kind,
    check_kinds,
)
from bertd_export.errors import ExportError

PATH = Path("folder") / "file.json"
TABLES = (ADAPTER, CONFIG, TOKENIZER, SENTENCE, TRANSFORMER)


@pytest.mark.parametrize(
    ("kinds", "key", "value", "wanted"),
    [
        (CONFIG, "hidden_size", "32", "a positive integer of at most 2147483647"),
        (CONFIG, "hidden_size", True, "a positive integer of at most 2147483647"),
        (CONFIG, "num_hidden_layers", 10**20, "a positive integer of at most 1000"),
        (CONFIG, "num_labels", 0, "a positive integer of at most 2147483647"),
        (CONFIG, "num_labels", None, "a positive integer of at most 2147483647"),
        (CONFIG, "architectures", "BertModel", "a list of strings, or null"),
        (CONFIG, "id2label", ["a"], "an object that maps numbers to labels, or null"),
        (CONFIG, "id2label", {"a": "0"}, "an object that maps numbers to labels, or null"),
        (CONFIG, "id2label", {"0": None}, "an object that maps numbers to labels, or null"),
        (CONFIG, "hidden_act", "nonsense", "one of "),
        (CONFIG, "hidden_act", ["gelu"], "one of "),
        (CONFIG, "sentence_transformers", "5", "an object, or null"),
        (TOKENIZER, "model_max_length", "512", "a positive whole number, or null"),
        (TOKENIZER, "model_max_length", 0, "a positive whole number, or null"),
        (TOKENIZER, "model_max_length", 1.5, "a positive whole number, or null"),
        (TOKENIZER, "model_max_length", float("nan"), "a positive whole number, or null"),
        (TOKENIZER, "model_max_length", float("inf"), "a positive whole number, or null"),
        (TOKENIZER, "model_input_names", "input_ids", "a list of strings"),
        (TOKENIZER, "truncation_side", None, '"right" or "left"'),
        (TOKENIZER, "do_lower_case", "false", "true or false, or null"),
        (TOKENIZER, "extra_special_tokens", {"x": 1}, "a list of tokens, or an object"),
        (SENTENCE, "default_prompt_name", ["query"], "a string, or null"),
        (SENTENCE, "prompts", {"query": 1}, "an object that maps names to texts, or null"),
        (SENTENCE, "truncate_dim", 0, "a positive integer of at most 2147483647, or null"),
        (TRANSFORMER, "max_seq_length", True, "a positive integer of at most 2147483647, or null"),
        (ADAPTER, "r", "8", "a positive integer of at most 2147483647"),
        (ADAPTER, "lora_alpha", None, "a positive number"),
        (ADAPTER, "target_modules", [1], "a string or a list of strings, or null"),
        (ADAPTER, "rank_pattern", {"query": -1}, "an object that maps names to positive numbers"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(
    kinds: Mapping[str, Kind], key: str, value: Any, wanted: str
) -> None:
    said = re.escape(f"{PATH}: {key} is {value!r}; it must be {wanted}")
    with pytest.raises(ExportError, match=said):
        check_kinds(PATH, {key: value}, kinds)


@pytest.mark.parametrize("kinds", TABLES)
def test_a_key_that_is_absent_is_in_order(kinds: Mapping[str, Kind]) -> None:
    check_kinds(PATH, {"another": object()}, kinds)


def test_values_as_real_files_have_them() -> None:
    check_kinds(
        PATH,
        {
            "architectures": ["BertModel"],
            "hidden_act": "gelu",
            "id2label": {"0": "no", "1": 1},
            "num_hidden_layers": 24,
            "sentence_transformers": {"version": "4.1.0"},
        },
        CONFIG,
    )
    for limit in (512, 10**30, 1e30, 1000000000000000019884624838656, None):
        check_kinds(PATH, {"model_max_length": limit}, TOKENIZER)
    check_kinds(
        PATH,
        {
            "additional_special_tokens": ["[Q]", {"content": "[D]"}],
            "extra_special_tokens": {"image": "<image>"},
            "do_lower_case": False,
            "strip_accents": None,
        },
        TOKENIZER,
    )
    check_kinds(PATH, {"prompts": {"query": ""}, "default_prompt_name": None}, SENTENCE)
    check_kinds(
        PATH,
        {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "rank_pattern": {"query": 4}},
        ADAPTER,
    )
