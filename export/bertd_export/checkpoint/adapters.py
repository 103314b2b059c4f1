"""Adapters that lie beside a model's weights: merged into them by peft, or refused by name.

::

    adapter_config.json ──check_adapter──> LoRA of a known kind, a model beside it
    model without it ──merge_adapter──> W + s·B·A, or DoRA's; modules_to_save in place of the base's

transformers applies an adapter of its own accord where peft is installed, and passes over it
without a word where it is not: here it is always applied, and that once.
"""

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bertd_export.checkpoint.kinds import ADAPTER, check_kinds
from bertd_export.checkpoint.preflight import check_safetensors
from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_MODEL = ("model.safetensors", "pytorch_model.bin")
# Settings of LoRA that peft honours when it merges, or that say how it was trained.
_KNOWN = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    }
)
# Other settings, at these values alone: with another one an adapter is something else.
_VALUES: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}
_MERGE = (
    "merge it with peft (merge_and_unload), save the model without adapter_config.json and "
    f"{_WEIGHTS}, and export that"
)
# How much of the adapter's change the weights hold already, from 0 to 1, and how surely.
_MERGED = 0.5
_UNSURE = 0.25


def has_adapter(folder: Path) -> bool:
    """Whether an adapter lies in a transformers folder."""
    return any((folder / name).is_file() for name in (_CONFIG, _WEIGHTS, _PICKLED))


def check_adapter(folder: Path) -> None:
    """Check what can be known of a folder's adapter without loading it.

    Raises:
        ExportError: there is no model beside it, or it is none that peft merges here.
    """
    if not has_adapter(folder):
        return
    path = folder / _CONFIG
    if not path.is_file():
        raise ExportError(
            f"{folder} has the weights of an adapter, and {_CONFIG} that says what they are is "
            f"missing: fetch it from where they come from, or remove them if they are of no use"
        )
    config = read_object(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ExportError(
            f"{path}: peft_type is {kind!r}; LORA alone can be merged here: {_MERGE}, if it can be"
        )
    alone = not (folder / "config.json").is_file() or not any(
        (folder / name).is_file() or (folder / f"{name}.index.json").is_file() for name in _MODEL
    )
    if alone:
        raise ExportError(
            f"{folder} holds an adapter without its model, which is "
            f"{config.get('base_model_name_or_path')!r} by {_CONFIG}: {_MERGE}"
        )
    for key, value in sorted(config.items()):
        if key in _KNOWN or value in (None, False, {}, []) or value in _VALUES.get(key, ()):
            continue
        raise ExportError(f"{path}: {key} is {value!r}, which is not supported: {_MERGE}")
    check_kinds(path, config, ADAPTER)
    if not (folder / _WEIGHTS).is_file():
        raise ExportError(
            f"{folder} has {_CONFIG}, and {_WEIGHTS} is missing: save it with peft, as safetensors"
        )
    check_safetensors(folder / _WEIGHTS)
    if importlib.util.find_spec("peft") is None:
        raise ExportError(
            f"{folder} holds an adapter ({_CONFIG}), which peft merges: "
            f"pip install 'bertd[export,peft]'; or {_MERGE}"
        )


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """The folder, or one of links to all of it but its adapter, which transformers would apply."""
    if not has_adapter(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as view:
        for path in folder.iterdir():
            if path.name not in (_CONFIG, _WEIGHTS, _PICKLED):
                (Path(view) / path.name).symlink_to(path.resolve())
        yield Path(view)


def merge_adapter(folder: Path, model: Any) -> tuple[Any, frozenset[str]]:
    """The model with the folder's adapter merged, if there is one, and names of weights it brings.

    Args:
        folder: checked by :func:`check_adapter`.
        model: loaded without the adapter.

    Raises:
        ExportError: it does not fit the model, or may have been merged into it already.
    """
    if not has_adapter(folder):
        return model, frozenset()
    weights = {name: value.float() for name, value in load_file(folder / _WEIGHTS).items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for what will be renamed
            merged = _merged(folder, model, weights)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"the adapter in {folder} cannot be merged: {error}") from error
    own = {name.removeprefix("base_model.model.") for name in weights}
    return merged, frozenset(own & set(merged.state_dict()))


def _merged(folder: Path, model: Any, weights: dict[str, torch.Tensor]) -> Any:
    """The model with these weights of an adapter merged."""
    peft, layers = (importlib.import_module(name) for name in ("peft", "peft.tuners.lora"))
    adapted = peft.PeftModel(model, peft.PeftConfig.from_pretrained(str(folder)))
    _check_names(folder, set(weights), set(peft.get_peft_model_state_dict(adapted)))
    peft.set_peft_model_state_dict(adapted, weights)
    found = [module for module in adapted.modules() if isinstance(module, layers.LoraLayer)]
    _check_unmerged(folder, found)
    return adapted.merge_and_unload(safe_merge=True)


def _check_names(folder: Path, given: set[str], wanted: set[str]) -> None:
    lacking, left = sorted(wanted - given), sorted(given - wanted)
    if lacking or left:
        what = f"lacks {lacking[0]}" if lacking else f"holds {left[0]}, which has no place in it"
        raise ExportError(
            f"{folder / _WEIGHTS} does not fit the model of this task and {_CONFIG}: it {what}; "
            f"choose the task that it was trained for with --task, or {_MERGE}"
        )


def _check_unmerged(folder: Path, layers: list[Any]) -> None:
    """Refuse weights that seem to hold the adapter's change already.

    Of a merged weight W + D, the share of D in it is <W + D, D> / <D, D>, which is 1 and what W
    and D have in common by chance; of the plain weight W it is that alone.
    """
    common = change = chance = 0.0
    for layer in layers:
        weight = layer.get_base_layer().weight.detach().double()
        delta = layer.get_delta_weight("default").detach().double()
        size = float(torch.sum(delta * delta))
        common += float(torch.sum(weight * delta))
        change += size
        chance += size * float(torch.mean(weight * weight))
    if not change:  # nothing to merge, whatever the weights are
        return
    share, spread = common / change, chance**0.5 / change
    if share > _MERGED or spread > _UNSURE:
        seen = "they hold its change already" if share > _MERGED else "it is too small to tell"
        raise ExportError(
            f"the weights in {folder} may be those of a model that the adapter beside them "
            f"({_CONFIG}) has been merged into, and would get it twice ({seen}): if they are, "
            f"remove the adapter's files; if not, {_MERGE}"
        )
