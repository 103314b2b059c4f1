"""Every setting of sentence-transformers' files: honoured, without effect, refused, or named.

::

    sentence_bert_config.json ──────────> limit, lower case; refused what bertd does not do
    config_sentence_transformers.json ──> truncate_dim; notes on keys that nobody reads
    modules.json ───────────────────────> notes on keys that nobody reads
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertd_export.checkpoint.kinds import TRANSFORMER, check_kinds
from bertd_export.checkpoint.settings import unknown_keys
from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

# The names that sentence-transformers looks for, in its order; it reads the first with a key.
_TRANSFORMER = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_OF_TRANSFORMER_MODULE = {
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "unpad_inputs",
    "query_length",
    "document_length",
    "query_expansion",
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_name_or_path",
}
# Options of a loader that change how a model is run and not what it answers.
_HARMLESS_OPTIONS = {
    "add_pooling_layer",
    "attn_implementation",
    "cache_dir",
    "device_map",
    "dtype",
    "local_files_only",
    "low_cpu_mem_usage",
    "revision",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
    "use_safetensors",
}
_READ_AS = {("forward", "last_hidden_state"), ("forward", "logits")}
# What the Transformer module of sentence-transformers hands on, by its transformer_task.
_MODULE_OUTPUTS = {
    "feature-extraction": "token_embeddings",
    "sequence-classification": "scores",
    "fill-mask": "token_embeddings",
}
_OF_SENTENCE_TRANSFORMERS = {
    "__version__",
    "activation_fn",
    "default_prompt_name",
    "keep_in_fp32_modules",
    "model_type",
    "prompts",
    "requirements",
    "similarity_fn_name",
    "truncate_dim",
}
_OF_SPARSE_ENCODERS = {"max_active_dims"}
_OF_MODULES = {"idx", "name", "path", "type", "kwargs"}


def transformer_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the settings of sentence-transformers' Transformer module, and what it says.

    Raises:
        ExportError: a setting asks for what a bundle cannot do.
    """
    there = (folder / name for name in _TRANSFORMER if (folder / name).is_file())
    path, raw = next(((path, raw) for path in there if (raw := read_object(path))), (None, {}))
    if path is None:
        return folder / _TRANSFORMER[0], {}
    unknown = sorted(raw.keys() - _OF_TRANSFORMER_MODULE)
    if unknown:
        raise ExportError(
            f"{path}: {', '.join(unknown)} is unknown to sentence-transformers, which fails on "
            f"it: take it out"
        )
    check_kinds(path, raw, TRANSFORMER)
    _check_task(path, raw)
    _check_options(path, raw)
    return path, raw


def _object(path: Path, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A setting that is an object; an empty one where it is absent or null."""
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise ExportError(f"{path}: {key} is {value!r}; it must be an object")
    return value or {}


def _check_task(path: Path, raw: Mapping[str, Any]) -> None:
    """Refuse a task of the Transformer module whose output bertd does not read."""
    task = str(raw.get("transformer_task") or "feature-extraction")
    if task not in _MODULE_OUTPUTS:
        raise ExportError(
            f"{path}: transformer_task {task!r} is not supported; supported: "
            f"{', '.join(_MODULE_OUTPUTS)}"
        )
    output = raw.get("module_output_name") or _MODULE_OUTPUTS[task]
    if output != _MODULE_OUTPUTS[task]:
        raise ExportError(
            f"{path}: module_output_name is {output!r}; of {task} only {_MODULE_OUTPUTS[task]!r} "
            f"is supported"
        )
    for modality, how in _object(path, raw, "modality_config").items():
        output = how.get("method_output_name") if isinstance(how, Mapping) else None
        method = how.get("method") if isinstance(how, Mapping) else None
        if modality == "text" and (method, output) not in _READ_AS:
            raise ExportError(
                f"{path}: modality_config reads {output!r} of {method!r} for texts; supported is "
                f"last_hidden_state, or logits, of forward"
            )


def _check_options(path: Path, raw: Mapping[str, Any]) -> None:
    """Refuse options with which sentence-transformers would load or call the model otherwise."""
    for key in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
        if raw.get(key):
            raise ExportError(
                f"{path}: {key} is {raw[key]!r}, which bertd does not do: take it out"
            )
    if any(_object(path, raw, "processing_kwargs").values()):
        raise ExportError(
            f"{path}: processing_kwargs {raw['processing_kwargs']} change how texts are read, "
            f"which bertd does not do: take them out"
        )
    for key in ("model_args", "tokenizer_args", "config_args"):
        for name in (key, key.replace("args", "kwargs").replace("tokenizer", "processor")):
            others = sorted(_object(path, raw, name).keys() - _HARMLESS_OPTIONS)
            if others:
                raise ExportError(
                    f"{path}: {name} sets {', '.join(others)}, which bertd does not pass on: save "
                    f"the model with them in its own config.json or tokenizer_config.json"
                )


def sentence_notes(folder: Path) -> tuple[str, ...]:
    """Notes on keys that nobody knows of a sentence-transformers folder's own files."""
    notes: tuple[str, ...] = ()
    path = folder / "config_sentence_transformers.json"
    if path.is_file():
        settings = read_object(path)
        known = _OF_SENTENCE_TRANSFORMERS
        if settings.get("model_type") == "SparseEncoder":
            known = known | _OF_SPARSE_ENCODERS
        notes = unknown_keys(path, settings.keys() - known)
    return notes


def module_notes(path: Path, modules: list[dict[str, Any]]) -> tuple[str, ...]:
    """Notes on keys that nobody knows of ``modules.json``."""
    return unknown_keys(path, {key for module in modules for key in module} - _OF_MODULES)
