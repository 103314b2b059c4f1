"""What kind of value a key of a checkpoint's files may have, so that a refusal names the key.

::

    {"num_labels": "12"} ──check_kinds──> config.json: num_labels is '12'; it must be a positive …

Libraries read most keys without a look at their kind, and fail far from the file.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers.activations import ACT2FN

from bertd_export.errors import ExportError

_LARGEST = 2**31 - 1
_LAYERS = 1000  # each is built before the weights show that there are fewer


class Kind(NamedTuple):
    """What a value must be, in words, and whether one is."""

    words: str
    holds: Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST


def _is_limit(value: Any) -> bool:
    """What tokenizers write where there is no limit is 10^30, as a whole number or not."""
    return type(value) in (int, float) and value >= 1 and value == value // 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(
        number.isdecimal() and isinstance(name, (str, int)) for number, name in value.items()
    )


def _or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or null", lambda value: value is None or bool(kind.holds(value)))


COUNT = Kind(f"a positive integer of at most {_LARGEST}", _is_count)
_NAME = Kind("a string", lambda value: isinstance(value, str))
_OBJECT = Kind("an object", lambda value: isinstance(value, dict))
_SIDE = Kind('"right" or "left"', lambda value: value in ("right", "left"))
_SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
_NAMES = Kind(
    "a list of strings",
    lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
)
_TOKENS = Kind(
    "a list of tokens, or an object that names them",
    lambda value: (
        isinstance(value, (list, dict))
        and all(
            isinstance(one, (str, dict))
            for one in (value.values() if isinstance(value, dict) else value)
        )
    ),
)
_TEXTS = Kind(
    "an object that maps names to texts",
    lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
)
_NUMBER = Kind("a positive number", _is_number)
_NUMBERS = Kind(
    "an object that maps names to positive numbers",
    lambda value: isinstance(value, dict) and all(_is_number(one) for one in value.values()),
)

CONFIG: Mapping[str, Kind] = {
    "architectures": _or_null(_NAMES),
    "auto_map": _OBJECT,
    "hidden_act": Kind(
        f"one of {', '.join(sorted(ACT2FN))}",
        lambda value: isinstance(value, str) and value in ACT2FN,
    ),
    "hidden_size": COUNT,
    "id2label": _or_null(Kind("an object that maps numbers to labels", _is_labels)),
    "intermediate_size": COUNT,
    "max_position_embeddings": _or_null(COUNT),
    "num_attention_heads": COUNT,
    "num_hidden_layers": Kind(
        f"a positive integer of at most {_LAYERS}",
        lambda value: type(value) is int and 1 <= value <= _LAYERS,
    ),
    "num_labels": COUNT,
    "quantization_config": _or_null(_OBJECT),
    "rope_scaling": _or_null(_OBJECT),
    "sbert_ce_default_activation_function": _or_null(_NAME),
    "sentence_transformers": _or_null(_OBJECT),
    "tokenizer_class": _or_null(_NAME),
    "vocab_size": COUNT,
}
TOKENIZER: Mapping[str, Kind] = {
    "added_tokens_decoder": _OBJECT,
    "additional_special_tokens": _or_null(_TOKENS),
    "auto_map": _or_null(_OBJECT),
    "do_lower_case": _or_null(_SWITCH),
    "extra_special_tokens": _or_null(_TOKENS),
    "max_len": _or_null(Kind("a positive whole number", _is_limit)),
    "model_input_names": _NAMES,
    "model_max_length": _or_null(Kind("a positive whole number", _is_limit)),
    "padding_side": _SIDE,
    "split_special_tokens": _SWITCH,
    "strip_accents": _or_null(_SWITCH),
    "tokenize_chinese_chars": _or_null(_SWITCH),
    "tokenizer_class": _or_null(_NAME),
    "truncation_side": _SIDE,
}
SENTENCE: Mapping[str, Kind] = {
    "activation_fn": _or_null(_NAME),
    "default_prompt_name": _or_null(_NAME),
    "max_active_dims": _or_null(COUNT),
    "model_type": _or_null(_NAME),
    "prompts": _or_null(_TEXTS),
    "truncate_dim": _or_null(COUNT),
}
TRANSFORMER: Mapping[str, Kind] = {
    "do_lower_case": _or_null(_SWITCH),
    "max_seq_length": _or_null(COUNT),
    "transformer_task": _or_null(_NAME),
}
ADAPTER: Mapping[str, Kind] = {
    "alpha_pattern": _or_null(_NUMBERS),
    "fan_in_fan_out": _SWITCH,
    "lora_alpha": _NUMBER,
    "modules_to_save": _or_null(_NAMES),
    "r": COUNT,
    "rank_pattern": _or_null(_NUMBERS),
    "target_modules": _or_null(
        Kind(
            "a string or a list of strings", lambda value: _NAME.holds(value) or _NAMES.holds(value)
        )
    ),
    "use_dora": _SWITCH,
    "use_rslora": _SWITCH,
}


def check_kinds(path: Path, raw: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Refuse a value of another kind than its key can have.

    Args:
        path: of the file, named in the error.
        raw: what it says.
        kinds: of the keys that are looked at; a key that is absent is in order.

    Raises:
        ExportError: it names the first such key, its value, and what it must be.
    """
    for key, kind in kinds.items():
        if key in raw and not kind.holds(raw[key]):
            raise ExportError(f"{path}: {key} is {raw[key]!r}; it must be {kind.words}")
