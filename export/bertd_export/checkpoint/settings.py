"""Every setting of a transformers folder: honoured elsewhere, without effect, refused, or named.

::

                             ┌─> refused: it would change the answers
    config.json,             ┼─> a note: nobody reads it
    tokenizer_config.json ───┴─> nothing: it is read, or has no effect on answers

What is known is asked of transformers' own classes, so that a new version is followed.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import MODEL_MAPPING, GenerationConfig, PreTrainedTokenizerBase

from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

_CONFIG = "config.json"
_TOKENIZER = "tokenizer_config.json"
# Keys of config.json that transformers writes or reads for any model, or that others do.
_OF_ANY_MODEL = {
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "finetuning_task",
    "gradient_checkpointing",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "quantization_config",
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "use_bfloat16",
}
_ROTARY = {"rope_theta", "rope_scaling", "global_rope_theta", "local_rope_theta"}
# Settings that the code of a model once read, and the value with which they change nothing.
_ONCE_READ = {"position_embedding_type": "absolute", "pruned_heads": {}}
_OF_ANY_TOKENIZER = {
    "add_bos_token",
    "add_eos_token",
    "added_tokens_decoder",
    "additional_special_tokens",
    "auto_map",
    "backend",
    "chat_template",
    "clean_up_tokenization_spaces",
    "extra_special_tokens",
    "from_slow",
    "is_local",
    "local_files_only",
    "max_len",
    "max_length",
    "model_input_names",
    "model_max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding_side",
    "processor_class",
    "sp_model_kwargs",
    "special_tokens_map_file",
    "split_special_tokens",
    "stride",
    "tokenizer_class",
    "tokenizer_file",
    "truncation_side",
    "truncation_strategy",
    "use_fast",
    "vocab_file",
    "verbose",
}


def unknown_keys(path: Path, keys: Iterable[str]) -> tuple[str, ...]:
    """A note on keys that nobody knows, if there are any."""
    found = sorted(keys)
    return (f"{path.name}: nobody reads {', '.join(found)}",) * bool(found)


def check_config(folder: Path, raw: Mapping[str, Any], config: Any) -> tuple[str, ...]:
    """Account for the keys of ``config.json``.

    Args:
        folder: of the transformers model.
        raw: what the file says.
        config: what transformers made of it.

    Returns:
        Notes for whoever exports.

    Raises:
        ExportError: a setting asks for what the loaded model would not do.
    """
    path = folder / _CONFIG
    kind = type(config)
    known = {field.name for field in fields(kind)} | set(kind.attribute_map) | _OF_ANY_MODEL
    known |= {name for name, value in inspect.getmembers(kind) if isinstance(value, property)}
    known |= set(GenerationConfig._get_default_generation_params())  # noqa: SLF001 - no public name
    known |= {key for key in raw if f'"{key}"' in _source(kind)}  # read by hand
    if hasattr(config, "rope_parameters"):
        known |= _ROTARY
    if raw.get("quantization_config"):
        raise ExportError(
            f"{path}: quantization_config says that the weights are quantised: use the checkpoint "
            f"that they were made from; bertd quantises with --precision int8"
        )
    notes: list[str] = []
    for key, harmless in _ONCE_READ.items():
        value = raw.get(key)
        if key in raw and key not in known and value and value != harmless:
            raise ExportError(
                f"{path}: {key} is {value!r}, which {kind.__name__} of transformers no longer "
                f"reads: the loaded model would be another than the trained one; export with a "
                f"checkpoint whose {key} is {harmless!r}"
            )
        known.add(key)
    if "auto_map" in raw:
        notes.append(
            f"{path.name}: auto_map names code that comes with the checkpoint, which is never "
            f"run: the model is transformers' own {config.model_type}"
        )
    return (*notes, *_labels(path, raw, config), *unknown_keys(path, raw.keys() - known))


def _source(kind: type[Any]) -> str:
    """Code that reads a configuration of this class: its own module, and that of its model.

    DeBERTa's model asks for some settings that its configuration does not declare.
    """
    models: Any = MODEL_MAPPING.get(kind, ())
    readers = [kind, *(models if isinstance(models, tuple) else (models,))]
    return "".join(inspect.getsource(inspect.getmodule(reader) or reader) for reader in readers)


def _labels(path: Path, raw: Mapping[str, Any], config: Any) -> tuple[str, ...]:
    """A note where the loaded model's labels are not those that the file names."""
    named, count = raw.get("id2label"), len(config.id2label)
    note = ""
    if isinstance(named, Mapping) and len(named) != count:
        note = (
            f"{path.name}: id2label names {len(named)} labels and num_labels says {count}, so "
            f"transformers passes over the names: {config.id2label[0]} and so on"
        )
    elif not named and raw.get("label2id"):
        note = (
            f"{path.name}: transformers reads the names of labels from id2label, not from "
            f"label2id: {config.id2label[0]} and so on"
        )
    return (note,) * bool(note)


def check_chat_template(folder: Path, tokenizer: Any, library: str) -> None:
    """Refuse a template for chats in a folder that sentence-transformers opens without its files.

    Args:
        folder: of the transformers model.
        tokenizer: what transformers made of it.
        library: the class with which a user would open it.

    Raises:
        ExportError: there is one.
    """
    if getattr(tokenizer, "chat_template", None):
        raise ExportError(
            f"{folder / _TOKENIZER}: chat_template is set, and {library} puts each text into it, "
            f"where the model alone reads the text: remove it, or save the folder with "
            f"sentence-transformers"
        )


def check_tokenizer_config(folder: Path, tokenizer: Any) -> tuple[str, ...]:
    """Account for the keys of ``tokenizer_config.json``.

    Args:
        folder: of the transformers model.
        tokenizer: what transformers made of it.

    Returns:
        Notes for whoever exports.

    Raises:
        ExportError: a setting asks for what a bundle cannot do.
    """
    path = folder / _TOKENIZER
    if tokenizer.truncation_side != "right":
        raise ExportError(
            f"{path}: truncation_side is {tokenizer.truncation_side!r}, and a bundle leaves out "
            f'the end of a text that is too long: set it to "right"'
        )
    if getattr(tokenizer, "split_special_tokens", False):
        raise ExportError(
            f"{path}: split_special_tokens is true, and a bundle reads special tokens that a text "
            f"spells out as such: set it to false"
        )
    if not path.is_file():
        return ()
    raw = read_object(path)
    known = set(_OF_ANY_TOKENIZER) | set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
    for kind in type(tokenizer).__mro__:
        known |= set(inspect.signature(kind).parameters)
    notes: list[str] = []
    if "auto_map" in raw:
        notes.append(
            f"{path.name}: auto_map names code that comes with the checkpoint, which is never "
            f"run: the tokenizer is transformers' own {type(tokenizer).__name__}"
        )
    return (*notes, *unknown_keys(path, raw.keys() - known))
