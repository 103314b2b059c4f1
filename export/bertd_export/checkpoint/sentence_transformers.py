"""What a sentence-transformers folder adds to a model: pooling, layers behind it, prompts.

::

    modules.json ──> Transformer (a folder) ─> Pooling ─> Dense, Normalize, …   read_sentence_config
    config_sentence_transformers.json, sentence_bert_config.json ──> prompts, limit, lower case
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch
from bertd.bundle import Pooling
from safetensors.torch import load_file

from bertd_export.checkpoint.foreign import check_foreign, check_module_types
from bertd_export.checkpoint.preflight import check_safetensors
from bertd_export.checkpoint.sentence_settings import (
    module_notes,
    sentence_notes,
    transformer_settings,
    truncated_to,
)
from bertd_export.checkpoint.source import inside, read_json, read_object
from bertd_export.errors import ExportError

_LEGACY_POOLING: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
    "Sigmoid": torch.nn.Sigmoid,
    "SiLU": torch.nn.SiLU,
}


class Normalize(torch.nn.Module):
    """Scales every row to length one."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, each divided by its Euclidean norm."""
        return torch.nn.functional.normalize(rows, p=2.0, dim=1, eps=1e-12)


class Truncate(torch.nn.Module):
    """Keeps the first values of every row; their length is not restored.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows ``[texts, dimensions]``, cut to ``[texts, size]``."""
        return rows[:, : self.size]


@dataclass
class SentenceConfig:
    """What the sentence-transformers files say; the defaults hold for a plain model."""

    transformer: Path
    pooling: tuple[Pooling, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    after: list[torch.nn.Module] = field(default_factory=list)
    max_seq_length: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    notes: tuple[str, ...] = ()


def _pooling(config: dict[str, Any]) -> tuple[Pooling, ...]:
    if config.get("include_prompt", True) is False:
        raise ExportError("pooling with include_prompt=false is not supported")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)]
    elif isinstance(modes, str):
        modes = [modes]
    elif not isinstance(modes, list):
        raise ExportError(f"pooling_mode is {modes!r}; it must be a name or a list of names")
    if not modes:
        raise ExportError("the pooling module's config.json names no pooling mode")
    known = get_args(Pooling)
    for mode in modes:
        if mode not in known or mode == "weightedmean":
            supported = ", ".join(m for m in known if m != "weightedmean")
            raise ExportError(f"pooling mode {mode!r} is not supported; supported: {supported}")
    return cast("tuple[Pooling, ...]", tuple(modes))


def _dense(folder: Path, *, allow_pickle: bool) -> torch.nn.Module:
    config = read_object(folder / "config.json")
    names = (config.get("module_input_name"), config.get("module_output_name"))
    if any(name not in (None, "sentence_embedding") for name in names):
        raise ExportError(f"{folder}: a Dense module on {names} is not supported")
    if config.get("use_residual"):
        raise ExportError(f"{folder}: a Dense module with use_residual is not supported")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(path.rpartition(".")[2])
    if activation is None or not path.startswith("torch.nn."):
        raise ExportError(
            f"{folder}: activation {path} is not supported; supported: {', '.join(_ACTIVATIONS)}"
        )
    sizes = [config.get("in_features"), config.get("out_features")]
    width, height = (size if isinstance(size, int) else 0 for size in sizes)
    if min(width, height) < 1:
        raise ExportError(f"{folder}: in_features and out_features must be positive integers")
    linear = torch.nn.Linear(width, height, bias=bool(config.get("bias", True)))
    weights, state = _dense_weights(folder, allow_pickle=allow_pickle)
    state = {k.removeprefix("linear."): v.float() for k, v in state.items()}
    try:
        linear.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(f"{weights} does not fit its config.json: {error}") from error
    return torch.nn.Sequential(linear, activation())


def _dense_weights(folder: Path, *, allow_pickle: bool) -> tuple[Path, dict[str, torch.Tensor]]:
    """The file with a Dense module's weights, and what it holds."""
    weights = folder / "model.safetensors"
    if weights.is_file():
        check_safetensors(weights)
        return weights, load_file(weights)
    pickled = folder / "pytorch_model.bin"
    if not pickled.is_file():
        raise ExportError(f"{folder} has no weights: {weights.name} is missing")
    if not allow_pickle:
        raise ExportError(
            f"{folder} has pickled weights only ({pickled.name}): save them as safetensors, or "
            f"pass --allow-pickle if you trust where they come from"
        )
    try:
        return pickled, torch.load(pickled, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(f"{pickled} cannot be loaded: {error}") from error


def read_sentence_config(folder: Path, *, allow_pickle: bool) -> SentenceConfig:
    """Read what the folder says; of a plain model, little.

    Args:
        folder: the checkpoint.
        allow_pickle: read pickled weights of a Dense module where there are no safetensors.

    Raises:
        ExportError: a file is wrong, or asks for something that a bundle cannot do.
    """
    check_foreign(folder)
    settings: dict[str, Any] = {}
    if (folder / "config_sentence_transformers.json").is_file():
        settings = read_object(folder / "config_sentence_transformers.json")
    notes = sentence_notes(folder)
    if not (folder / "modules.json").is_file():
        return SentenceConfig(folder, settings=settings, notes=notes)
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules
    ):
        raise ExportError(f"{folder / 'modules.json'} must list modules, each with type and path")
    check_module_types(folder / "modules.json", modules)
    notes += module_notes(folder / "modules.json", modules)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    allowed = ("Dense", "Normalize")
    if kinds == ["Transformer"] and settings.get("model_type") == "CrossEncoder":
        transformer = inside(folder, modules[0]["path"])
        return _described(SentenceConfig(transformer, settings=settings, notes=notes))
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind not in allowed for kind in kinds[2:]):
        raise ExportError(
            f"modules.json lists {', '.join(kinds)}; supported: Transformer, Pooling, "
            f"then any of {', '.join(allowed)}"
        )
    paths = [inside(folder, module["path"]) for module in modules]
    sentence = SentenceConfig(paths[0], _pooling(read_object(paths[1] / "config.json")), settings)
    for kind, path in zip(kinds[2:], paths[2:], strict=True):
        sentence.after.append(
            _dense(path, allow_pickle=allow_pickle) if kind == "Dense" else Normalize()
        )
    sentence.notes = notes
    sentence.truncate_dim = truncated_to(folder / "config_sentence_transformers.json", settings)
    return _described(sentence)


def _described(sentence: SentenceConfig) -> SentenceConfig:
    """Add the limit and the prompts that sentence-transformers' settings name."""
    path, settings = transformer_settings(sentence.transformer)
    task = settings.get("transformer_task") or "feature-extraction"
    if sentence.pooling is not None and task != "feature-extraction":
        raise ExportError(
            f"{path}: transformer_task is {task!r}, which gives logits, and modules.json pools "
            f"token embeddings: set it to 'feature-extraction'"
        )
    limit = settings.get("max_seq_length")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ExportError(f"max_seq_length is {limit!r}; it must be a positive integer")
    sentence.max_seq_length = limit
    sentence.lower = bool(settings.get("do_lower_case"))
    sentence.prompts = sentence.settings.get("prompts") or {}
    if not isinstance(sentence.prompts, dict) or not all(
        isinstance(text, str) for text in sentence.prompts.values()
    ):
        raise ExportError(f"prompts are {sentence.prompts!r}; they must map names to texts")
    default = sentence.settings.get("default_prompt_name")
    if default is not None and default not in sentence.prompts:
        raise ExportError(f"default_prompt_name {default!r} is not among the prompts")
    sentence.default_prompt_name = default
    return sentence
