"""Checks a transformers folder before anything is built from it, and the weights once loaded.

::

    config.json ──> sizes make sense, no code of its own ──> weights whole, safetensors
                                                        ──> tokenizer there ──> (loading) ──> finite
"""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig
from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from bertd_export.checkpoint.kinds import CONFIG, check_kinds
from bertd_export.checkpoint.source import inside, read_object
from bertd_export.errors import ExportError

_CONFIG = "config.json"
_SAFE = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
_CONVERT = (
    "with transformers 4: AutoModel….from_pretrained(FOLDER, {}=True).save_pretrained(NEW), with "
    "the class of the task"
)
_TRAINING = (
    "a checkpoint of a training program: load the model there, and save it with save_pretrained"
)
_ORIGINAL = "an export cannot be exported again: use the PyTorch checkpoint that it was made from"
# Weights in formats that transformers 5 does not read.
_OTHER_WEIGHTS = {
    "tf_model.h5": f"TensorFlow's weights, which transformers 5 does not read; convert them "
    f"{_CONVERT.format('from_tf')}",
    "*.ckpt.index": "a TensorFlow checkpoint, which transformers 5 does not read; convert it "
    f"{_CONVERT.format('from_tf')}",
    "flax_model.msgpack": "Flax's weights, which transformers 5 does not read; convert them "
    f"{_CONVERT.format('from_flax')}",
    "rust_model.ot": "weights of rust-bert; use the checkpoint that they were made from",
    "*.onnx": _ORIGINAL,
    "onnx/*.onnx": _ORIGINAL,
    "openvino*.xml": _ORIGINAL,
    "*.gguf": _ORIGINAL,
    "*.ckpt": _TRAINING,
    "*.pt": _TRAINING,
    "*.pth": _TRAINING,
    "*.safetensors": f"rename it to {_SAFE} if it holds the whole model",
}
_LFS = b"version https://git-lfs"
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def check_folder(folder: Path, *, allow_pickle: bool) -> Any:
    """Check what can be known of a transformers folder without building the model.

    Returns:
        The configuration that transformers makes of ``config.json``.

    Raises:
        ExportError: a file is missing, broken or unsafe, or a size is nonsense.
    """
    config = _check_config(folder)
    _check_weights(folder, config.hidden_size, allow_pickle=allow_pickle)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ExportError(
            f"{folder} has no tokenizer: none of {', '.join(_TOKENIZERS)} is there; put the "
            f"model's own there, as tokenizer.json if it is of another kind (code that comes with "
            f"it, auto_map of tokenizer_config.json, is never run)"
        )
    return config


def _check_config(folder: Path) -> Any:
    path = folder / _CONFIG
    raw = read_object(path)
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ExportError(f"{path} names no model_type: {_model_type_of(raw)}")
    if kind not in CONFIG_MAPPING:
        reason = (
            "needs code that comes with the checkpoint (auto_map), and a checkpoint's code is "
            "never run"
            if "auto_map" in raw
            else "is not known to transformers"
        )
        raise ExportError(f"{path}: model_type {kind!r} {reason}")
    check_kinds(path, raw, CONFIG)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ExportError(f"{path} is not a valid configuration: {error}") from error
    for name in _SIZES:
        value = getattr(config, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ExportError(f"{path}: {name} is {value!r}; it must be a positive integer")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and (not isinstance(positions, int) or positions < 1):
        raise ExportError(
            f"{path}: max_position_embeddings is {positions!r}; it must be a positive integer"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ExportError(
            f"{path}: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {config.num_attention_heads}"
        )
    if getattr(config, "chunk_size_feed_forward", 0):  # transformers itself fails on other lengths
        raise ExportError(
            f"{path}: chunk_size_feed_forward is {config.chunk_size_feed_forward}, with which the "
            "model reads texts of a multiple of so many tokens alone: write 0, which answers alike"
        )
    return config


def _model_type_of(raw: dict[str, Any]) -> str:
    """What to write as model_type, as far as architectures says it."""
    named = raw.get("architectures")
    for name in map(str, named if isinstance(named, list) else []):
        for kind, config in CONFIG_MAPPING_NAMES.items():
            if re.match(rf"{config.removesuffix('Config')}(For[A-Z]|Model$)", name):
                return f'architectures names {name}, so add "model_type": "{kind}"'
    return (
        'add the family that the checkpoint was trained as, such as "model_type": "bert"; '
        "if no transformers model wrote it, it is of another library and cannot be exported"
    )


def _shards(folder: Path, name: str) -> list[Path]:
    """The files of one kind of weights, found through the index where they are split."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ExportError(f"{index} has no weight_map")
    paths = {inside(folder, name) for name in names.values()}
    missing = sorted(path.name for path in paths if not path.is_file())
    if missing:
        raise ExportError(f"{folder} lacks weights: {index.name} lists {', '.join(missing)}")
    return sorted(paths)


def _check_weights(folder: Path, width: int, *, allow_pickle: bool) -> None:
    shards = _shards(folder, _SAFE)
    if not shards:
        if not _shards(folder, _PICKLED):
            raise ExportError(f"{folder} has no weights: {_SAFE} is missing{_instead(folder)}")
        if not allow_pickle:
            raise ExportError(
                f"{folder} has pickled weights only ({_PICKLED}): save them as safetensors, or "
                f"pass --allow-pickle if you trust where they come from"
            )
    for shard in shards:
        check_safetensors(shard)
    _check_width(folder, width, shards)


def _check_width(folder: Path, width: int, shards: Iterable[Path]) -> None:
    """Refuse a hidden_size of which no weight is, before memory is asked for a model of it."""
    sizes: set[int] = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as weights:
            sizes.update(*(weights.get_slice(name).get_shape() for name in weights.keys()))  # noqa: SIM118 - no dict
    if sizes and width not in sizes:
        raise ExportError(
            f"{folder / _CONFIG}: hidden_size is {width}, stated or as its model_type has it, and "
            f"no weight has such a size: take config.json from where the weights come from"
        )


def _instead(folder: Path) -> str:
    """What the folder holds in place of weights, and what to do with it."""
    for pattern, remedy in _OTHER_WEIGHTS.items():
        found = sorted(path.name for path in folder.glob(pattern))
        if found:
            return f", and {found[0]} is there instead: {remedy}"
    return ""


def check_safetensors(path: Path) -> None:
    """Check that a file is safetensors and as long as its header says.

    Raises:
        ExportError: it is not.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ExportError(
                f"{path} is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`"
            )
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path} is cut short or not a safetensors file: {error}; fetch it again"
        ) from error


def stored_names(folder: Path) -> set[str]:
    """Names of all weights in the folder's files; of pickled ones nothing is read but the names."""
    names: set[str] = set()
    for shard in _shards(folder, _SAFE):
        with safe_open(shard, framework="pt") as weights:
            names |= set(weights.keys())
    if names:
        return names
    for shard in _shards(folder, _PICKLED):
        names |= set(torch.load(shard, map_location="meta", weights_only=True))
    return names


def check_vocabulary(folder: Path, tokenizer: tokenizers.Tokenizer, vocab_size: int) -> None:
    """Check that the model has an embedding for every token of the tokenizer.

    Any of its tokens is refused beyond that, seldom or not: some text spells it out, and
    ONNX Runtime would then fail, or read a wrong row, while it serves.

    Raises:
        ExportError: a token has no embedding.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= vocab_size)
    if beyond:
        shown = ", ".join(f"{token!r} ({number})" for number, token in beyond[:3])
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        raise ExportError(
            f"{folder}: the tokenizer has tokens without an embedding, since vocab_size is "
            f"{vocab_size}: {shown}{more}; use the tokenizer that the model was trained with, or "
            f"remove these tokens"
        )


def check_finite(modules: Iterable[torch.nn.Module]) -> None:
    """Check that every weight is a finite number.

    Raises:
        ExportError: one is NaN or infinite.
    """
    for name, tensor in chain.from_iterable(module.state_dict().items() for module in modules):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ExportError(f"the weights {name} hold NaN or infinity: the checkpoint is damaged")
