"""Every tensor of a checkpoint: read by the model, known to be of no use here, or refused.

::

    names that the model did not find ──check_missing──> refused, with the cause
    names that nothing read ──check_left_aside──> heads of other tasks, buffers ──> nothing
                                              ──> of no encoder                 ──> a note
                                              ──> in the encoder or the head    ──> refused
"""

import inspect
import re
import sys
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from bertd.bundle import Task
from transformers import CONFIG_MAPPING, PreTrainedModel

from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

_LAYER = re.compile(r"\blayers?\.(\d+)\.")
# Numbers that a model counts for itself; older versions of transformers wrote them to the file.
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "original_inv_freq")
_WRAPPERS = {
    "module.": "torch.nn.DataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "base_model.model.": "a peft adapter that was not merged",
    "0.auto_model.": "the state of a SentenceTransformer",
    "0.model.": "the state of a SentenceTransformer",
}
_SHOWN = 5


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def check_sizes(folder: Path, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    """Refuse weights of another size than the configuration asks for.

    Args:
        folder: named in the error.
        mismatched: name of each, its size in the file and its size in the model.

    Raises:
        ExportError: there are any.
    """
    path = folder / "config.json"
    for name, stored, asked in sorted(mismatched, key=lambda found: found[0]):
        wrong = {size for size, right in zip(asked, stored, strict=False) if size != right}
        keys = [key for key, size in read_object(path).items() if _is_size(size) and size in wrong]
        raise ExportError(
            f"{path}: its sizes make {name} {list(asked)}, but the weights hold {list(stored)}: "
            f"the file is of another model, as its model_type may be, or "
            f"{' or '.join(sorted(keys)) or 'a size'} is wrong (of a classifier num_labels and "
            f"id2label)"
        )


_UNTIED = (
    " (config.json says tie_word_embeddings false: where a head has the embedding's weights, "
    "set it to true)"
)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_missing(
    folder: Path, task: Task, prefix: str, missing: set[str], unexpected: set[str]
) -> None:
    """Refuse a checkpoint without all weights of the task's model, and say why it lacks them.

    Args:
        folder: named in the error.
        task: of the model.
        prefix: before the names of the encoder's weights, such as ``bert.``.
        missing: names that the model looked for.
        unexpected: names that it did not read.

    Raises:
        ExportError: weights are missing; the message names the wrapper that renamed them.
    """
    if not missing:
        return
    lacking = {name.removeprefix(prefix) for name in missing}
    for name in sorted(unexpected):
        found = next((end for end in sorted(lacking) if name.endswith(f".{end}")), None)
        if found is None:
            continue
        before = name.removesuffix(found)
        if before != prefix and before.rstrip(".") in CONFIG_MAPPING:
            raise ExportError(
                f"{folder / 'config.json'}: the weights are those of model_type "
                f"{before.rstrip('.')!r} ({name}), and it says another: set it as it was trained"
            )
        wrapper = next((w for mark, w in _WRAPPERS.items() if before.startswith(mark)), None)
        raise ExportError(
            f"{folder}: weights are named {name!r} where transformers looks for {found!r}"
            f"{f'; {wrapper} does that' if wrapper else ''}: save the model that is inside with "
            f"save_pretrained, or take {before!r} off the names"
        )
    untied = read_object(folder / "config.json").get("tie_word_embeddings") is False
    raise ExportError(
        f"{folder} lacks weights that {task} needs: {_named(missing)}; use a checkpoint that was "
        f"trained for {task}, or another --task"
        f"{_UNTIED if untied else ''}"
    )


def _check_layers(folder: Path, names: Iterable[str], layers: int) -> None:
    """Refuse a file that holds more layers than the configuration counts."""
    for name in sorted(names):
        found = _LAYER.search(name)
        if found and int(found[1]) >= layers:
            raise ExportError(
                f"{folder / 'config.json'}: num_hidden_layers is {layers}, but the weights hold "
                f"{name}"
            )


def _of_the_family(model: Any) -> set[str]:
    """Weights, by name within the base model or beside it, of every class of the model's family.

    A model of one layer of each class is made without storage: it is asked for names alone.
    """
    config = deepcopy(model.config)
    config.num_hidden_layers = 1
    names: set[str] = set()
    for _, kind in inspect.getmembers(sys.modules[type(model).__module__], inspect.isclass):
        if not issubclass(kind, PreTrainedModel) or kind.config_class is not type(model.config):
            continue
        try:
            with torch.device("meta"):
                stock: Any = kind(config)
        except Exception:  # noqa: BLE001, S112 - a base class, or one that needs other settings
            continue
        prefix = f"{kind.base_model_prefix}."
        names |= {name.removeprefix(prefix) for name in stock.state_dict()}
    return names


def check_left_aside(
    folder: Path, task: Task, model: Any, unexpected: Iterable[str], stored: Iterable[str]
) -> tuple[str, ...]:
    """Account for the weights that the loaded model did not read.

    ============================================================  ==========================
    weights                                                       what becomes of them
    ============================================================  ==========================
    buffers that a model counts for itself (``position_ids``)     nothing
    those of another class of the family: another task's head     nothing
    others beside the encoder, where the task is of it alone      a note that names them
    others: in the encoder, in the task's head, beside both       refused
    ============================================================  ==========================

    Args:
        folder: named in an error.
        task: of the loaded model.
        model: as transformers loaded it.
        unexpected: names that it did not read.
        stored: all names of the file, as far as they are known.

    Returns:
        Notes for whoever exports.

    Raises:
        ExportError: weights that may change the answers were not read; it names them.
    """
    names = {name for name in unexpected if name.rpartition(".")[2] not in _BUFFERS}
    _check_layers(folder, names, int(model.config.num_hidden_layers))
    prefix = f"{model.base_model_prefix}."
    known = _of_the_family(model) if names else set()
    left = {name for name in names if name.removeprefix(prefix) not in known}
    parts = {
        name.partition(".")[0] for name in [*model.state_dict(), *model.base_model.state_dict()]
    }
    prefixed = any(name.startswith(prefix) for name in stored)
    parts.add(model.base_model_prefix)
    beside = {name for name in left if prefixed and name.partition(".")[0] not in parts}
    inside = left if task != "feature-extraction" else left - beside
    if inside:
        raise ExportError(
            f"{folder} holds weights that {type(model).__name__} of transformers does not read: "
            f"{_named(inside)}; its answers would not be those of the model that was trained. If "
            f"they are of no use, load the model with transformers and save it again"
        )
    return (f"weights beside the encoder are left aside: {_named(left)}",) * bool(left)
