"""The modules that sentence-transformers puts behind a transformer, read from their folders.

::

    1_Pooling/config.json       ──read_pooling──> modes, whether a prompt's tokens count
    1_SpladePooling/config.json ──read_splade───> SparseRules
    2_Dense/, 3_LayerNorm/, …   ──read_after────> torch modules on rows [texts, width]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from bertd.bundle import Pooling, SparseActivation, SparsePooling, SparseRules
from safetensors.torch import load_file

from bertd_export.checkpoint.kinds import COUNT, check_kinds
from bertd_export.checkpoint.preflight import check_safetensors
from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

# In the order in which sentence-transformers puts the vectors of several modes side by side.
_LEGACY_POOLING: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Of torch.nn, made without arguments: no weights, and nothing random.
_ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    kind.__name__: kind
    for kind in (
        torch.nn.ELU,
        torch.nn.GELU,
        torch.nn.Hardsigmoid,
        torch.nn.Hardswish,
        torch.nn.Hardtanh,
        torch.nn.Identity,
        torch.nn.LeakyReLU,
        torch.nn.Mish,
        torch.nn.ReLU,
        torch.nn.ReLU6,
        torch.nn.SELU,
        torch.nn.SiLU,
        torch.nn.Sigmoid,
        torch.nn.Softplus,
        torch.nn.Softsign,
        torch.nn.Tanh,
    )
}
_DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"
_VECTOR = "sentence_embedding"
AFTER_POOLING = ("Dense", "Dropout", "LayerNorm", "Normalize")


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


class Dense(torch.nn.Module):
    """A linear layer with an activation, and perhaps its input added to the result.

    Args:
        width: of a row.
        height: of the result.
        bias: whether the linear layer has one.
        activation: of the result.
        residual: add the input, through a linear layer of its own where the widths differ.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        bias: bool,
        activation: torch.nn.Module,
        residual: bool,
    ) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, height, bias=bias)
        self.activation = activation
        self.residual: torch.nn.Module | None = None
        if residual and width == height:
            self.residual = torch.nn.Identity()
        elif residual:
            self.residual = torch.nn.Linear(width, height, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`[texts, height]` of `[texts, width]`."""
        made: torch.Tensor = self.activation(self.linear(rows))
        return made if self.residual is None else made + self.residual(rows)


def known(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The config.json of a module, which says nothing but what is known of the module.

    Raises:
        ExportError: it has other keys, or cannot be read.
    """
    config = read_object(path)
    odd = sorted(set(config) - set(keys))
    if odd:
        raise ExportError(
            f"{path}: {', '.join(odd)} is not known of this module, so what it changes is not "
            f"either; known: {', '.join(keys)}"
        )
    return config


@dataclass(frozen=True)
class PoolingModule:
    """Modes in the order of their vectors, and whether the tokens of a prompt are pooled too."""

    modes: tuple[Pooling, ...]
    include_prompt: bool


def read_pooling(folder: Path) -> PoolingModule:
    """Read a Pooling module: `pooling_mode`, or the flags that older folders have instead.

    Raises:
        ExportError: it names no mode, or one that there is not.
    """
    path = folder / "config.json"
    widths = ("embedding_dimension", "word_embedding_dimension")
    config = known(path, (*widths, "pooling_mode", "include_prompt", *_LEGACY_POOLING))
    modes = config.get("pooling_mode")
    if "pooling_mode" not in config:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    elif isinstance(modes, str):
        modes = [modes]
    elif not isinstance(modes, list):
        raise ExportError(f"{path}: pooling_mode is {modes!r}; it must be a name or a list of them")
    if not modes:
        raise ExportError(f"{path}: pooling_mode names no pooling mode")
    supported = get_args(Pooling)
    for mode in modes:
        if mode not in supported:
            raise ExportError(
                f"{path}: pooling_mode {mode!r} is not supported; supported: {', '.join(supported)}"
            )
    include = config.get("include_prompt", True)
    if not isinstance(include, bool):
        raise ExportError(f"{path}: include_prompt is {include!r}; it must be true or false")
    return PoolingModule(cast("tuple[Pooling, ...]", tuple(modes)), include)


def read_splade(folder: Path, max_active_dims: int | None) -> SparseRules:
    """Read a SpladePooling module.

    Args:
        folder: of the module.
        max_active_dims: of config_sentence_transformers.json; None for no limit.

    Raises:
        ExportError: a value is none that SparseEncoder has.
    """
    path = folder / "config.json"
    widths = ("embedding_dimension", "word_embedding_dimension")
    config = known(path, ("pooling_strategy", "activation_function", *widths))
    pooling = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    for key, value, possible in (
        ("pooling_strategy", pooling, get_args(SparsePooling)),
        ("activation_function", activation, get_args(SparseActivation)),
    ):
        if value not in possible:
            raise ExportError(f"{path}: {key} is {value!r}; it must be {' or '.join(possible)}")
    return SparseRules(pooling=pooling, activation=activation, max_active_dims=max_active_dims)


def read_after(kind: str, folder: Path, *, allow_pickle: bool) -> torch.nn.Module | None:
    """Read a module behind pooling; None where it changes nothing at inference.

    Args:
        kind: one of :data:`AFTER_POOLING`.
        folder: of the module.
        allow_pickle: read pickled weights where there are no safetensors.

    Raises:
        ExportError: a file is wrong, or asks for something that is not supported.
    """
    if kind == "Dense":
        return _dense(folder, allow_pickle=allow_pickle)
    if kind == "LayerNorm":
        return _layer_norm(folder, allow_pickle=allow_pickle)
    return Normalize() if kind == "Normalize" else None


def width_after(modules: Sequence[torch.nn.Module], width: int) -> int:
    """How many values are left of so many behind the modules.

    Raises:
        ExportError: a module takes another number.
    """
    for module in modules:
        if isinstance(module, Dense):
            taken, made = module.linear.in_features, module.linear.out_features
        elif isinstance(module, torch.nn.LayerNorm):
            taken = made = module.normalized_shape[0]
        else:
            continue
        if taken != width:
            raise ExportError(
                f"a {type(module).__name__} module takes {taken} values, and {width} come to it: "
                "the folders of modules.json do not belong together"
            )
        width = made
    return width


def _dense(folder: Path, *, allow_pickle: bool) -> torch.nn.Module:
    path = folder / "config.json"
    config = known(
        path,
        (
            "in_features",
            "out_features",
            "bias",
            "activation_function",
            "module_input_name",
            "module_output_name",
            "use_residual",
        ),
    )
    names = (config.get("module_input_name"), config.get("module_output_name"))
    if any(name not in (None, _VECTOR) for name in names):
        raise ExportError(
            f"{path}: a Dense module of module_input_name {names[0]} and module_output_name "
            f"{names[1]} is not supported: it is on the {_VECTOR} that pooling makes, and nothing "
            f"else"
        )
    wanted = str(config.get("activation_function", _DEFAULT_ACTIVATION))
    activation = _ACTIVATIONS.get(wanted.rpartition(".")[2])
    if activation is None or wanted not in (
        f"torch.nn.{activation.__name__}",
        f"{activation.__module__}.{activation.__name__}",
    ):
        raise ExportError(
            f"{path}: activation_function {wanted} is not supported; supported, of torch.nn: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    check_kinds(
        path,
        {"in_features": None, "out_features": None, **config},
        {"in_features": COUNT, "out_features": COUNT},
    )
    width, height = config["in_features"], config["out_features"]
    dense = Dense(
        width,
        height,
        bias=bool(config.get("bias", True)),
        activation=activation(),
        residual=bool(config.get("use_residual", False)),
    )
    _take_weights(dense, folder, allow_pickle=allow_pickle)
    return dense


def _layer_norm(folder: Path, *, allow_pickle: bool) -> torch.nn.Module:
    path = folder / "config.json"
    config = {"dimension": None, **known(path, ("dimension",))}
    check_kinds(path, config, {"dimension": COUNT})
    norm = torch.nn.LayerNorm(config["dimension"])
    _take_weights(norm, folder, prefix="norm.", allow_pickle=allow_pickle)
    return norm


def _take_weights(
    module: torch.nn.Module, folder: Path, *, prefix: str = "", allow_pickle: bool
) -> None:
    """Give a module the weights of its folder: all that it has, and nothing else."""
    path, state = _weights(folder, allow_pickle=allow_pickle)
    state = {name.removeprefix(prefix): value.float() for name, value in state.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(f"{path} does not fit its config.json: {error}") from error


def _weights(folder: Path, *, allow_pickle: bool) -> tuple[Path, dict[str, torch.Tensor]]:
    """The file with a module's weights, and what it holds."""
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
