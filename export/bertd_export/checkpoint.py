"""Reads checkpoints: a plain transformers model, or a sentence-transformers folder."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import tokenizers
import torch
import transformers
from bertd.bundle import Pooling, Rows, Task
from safetensors.torch import load_file
from transformers import AutoConfig

from bertd_export import tasks
from bertd_export.errors import ExportError
from bertd_export.families import check_family
from bertd_export.preflight import (
    check_finite,
    check_folder,
    check_safetensors,
    check_unexpected,
    check_vocabulary,
)
from bertd_export.source import inside, locate, read_json, read_object
from bertd_export.tokenizer import load_tokenizer

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


@dataclass
class Checkpoint:
    """A model in memory and all that its folder says about how to use it."""

    name: str
    revision: str | None
    model: Any
    tokenizer: tokenizers.Tokenizer
    pooling: tuple[Pooling, ...]
    after_pooling: list[torch.nn.Module]
    normalized: bool
    dimensions: int
    max_tokens: int
    position_offset: int
    unnumbered_token_id: int | None
    type_vocab_size: int
    pad_token_id: int | None
    task: Task
    head: tasks.Head
    outputs: dict[str, Rows]
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    @property
    def inputs(self) -> set[str]:
        """Names that the model's forward accepts."""
        return set(inspect.signature(type(self.model).forward).parameters)


@dataclass
class _Sentence:
    """What the sentence-transformers files say; the defaults hold for a plain model."""

    transformer: Path
    pooling: tuple[Pooling, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    after: list[torch.nn.Module] = field(default_factory=list)
    max_seq_length: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


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


def _sentence(folder: Path, *, allow_pickle: bool) -> _Sentence:
    settings: dict[str, Any] = {}
    if (folder / "config_sentence_transformers.json").is_file():
        settings = read_object(folder / "config_sentence_transformers.json")
    if not (folder / "modules.json").is_file():
        return _Sentence(folder, settings=settings)
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules
    ):
        raise ExportError(f"{folder / 'modules.json'} must list modules, each with type and path")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    allowed = ("Dense", "Normalize")
    if kinds == ["Transformer"] and settings.get("model_type") == "CrossEncoder":
        return _described(_Sentence(inside(folder, modules[0]["path"]), settings=settings))
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind not in allowed for kind in kinds[2:]):
        raise ExportError(
            f"modules.json lists {', '.join(kinds)}; supported: Transformer, Pooling, "
            f"then any of {', '.join(allowed)}"
        )
    paths = [inside(folder, module["path"]) for module in modules]
    sentence = _Sentence(paths[0], _pooling(read_object(paths[1] / "config.json")), settings)
    for kind, path in zip(kinds[2:], paths[2:], strict=True):
        sentence.after.append(
            _dense(path, allow_pickle=allow_pickle) if kind == "Dense" else Normalize()
        )
    return _described(sentence)


def _described(sentence: _Sentence) -> _Sentence:
    """Add the limit and the prompts that sentence-transformers' settings name."""
    path = sentence.transformer / "sentence_bert_config.json"
    if path.is_file():
        settings = read_object(path)
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


def _config(folder: Path) -> Any:
    loader: Any = AutoConfig
    try:
        return loader.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder} cannot be loaded: {error}") from error


def _model(folder: Path, task: Task, *, allow_pickle: bool) -> tuple[Any, bool]:
    """The model with the task's head, and whether its checkpoint holds a trained pooler."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call,unused-ignore]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    try:
        model, report = tasks.loader(task).from_pretrained(
            folder,
            use_safetensors=None if allow_pickle else True,
            weights_only=True,  # of a pickle: numbers, never code
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise ExportError(f"{folder} cannot be loaded: {error}") from error
    plain = task == "feature-extraction"
    poolers = {key for key in report["missing_keys"] if plain and key.startswith("pooler.")}
    missing = sorted(set(report["missing_keys"]) - poolers)
    if missing:
        raise ExportError(f"{folder} lacks weights that {task} needs: {', '.join(missing[:5])}")
    check_unexpected(folder, report["unexpected_keys"], int(model.config.num_hidden_layers))
    trained = plain and not poolers and getattr(model, "pooler", None) is not None
    return model.eval(), trained


def _numbering(network: Any) -> tuple[int, int | None]:
    """How the model numbers positions by itself: the first one, and the token that takes none.

    The model is asked, rather than its class known: three tokens go through it, and what reaches
    the table of positions is read.

    Raises:
        ExportError: positions are numbered in a manner that a bundle cannot describe.
    """
    tables = [
        module
        for name, module in network.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding)
    ]
    if not tables:
        return 0, None  # rotary or relative positions
    seen: list[list[int]] = []
    padding = tables[0].padding_idx
    token = 0 if padding is None else padding
    with (
        tables[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].view(-1).tolist())),
        torch.inference_mode(),
    ):
        ids = torch.tensor([[token + 1, token, token + 1]])
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    if seen:
        first = seen[0][0]
        if seen[0] == [first, first + 1, first + 2]:
            return first, None
        if padding is not None and seen[0] == [first, first - 1, first + 1]:
            return first, padding
    raise ExportError(f"{type(network).__name__} numbers its positions in an unknown manner")


def load(
    model: str,
    task: str | None = None,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Load a checkpoint from a folder or from the hub.

    Args:
        model: a folder, or a hub id.
        task: one of :data:`bertd_export.tasks.TASKS`; by default the checkpoint's own.
        revision: branch, tag or commit on the hub.
        allow_pickle: read pickled weights where there are no safetensors; still no code is run.

    Raises:
        ExportError: it cannot be read, or it asks for something that a bundle cannot do.
    """
    folder, name, commit = locate(model, revision=revision, allow_pickle=allow_pickle)
    sentence = _sentence(folder, allow_pickle=allow_pickle)
    check_folder(sentence.transformer, allow_pickle=allow_pickle)
    stated_config = _config(sentence.transformer)
    check_family(stated_config)
    raw = read_object(sentence.transformer / "config.json")
    pooled = sentence.pooling is not None
    found = tasks.find_task(raw, sentence.settings, pooled=pooled, requested=task)
    tokenizer = load_tokenizer(sentence.transformer, lower=sentence.lower)
    check_vocabulary(sentence.transformer, tokenizer.tokenizer, int(stated_config.vocab_size))
    head = tasks.describe_head(found, raw, sentence.settings, tokenizer.mask_token_id)
    network, pooler = _model(sentence.transformer, found, allow_pickle=allow_pickle)
    plain = found == "feature-extraction"
    pooling: tuple[Pooling, ...] = (sentence.pooling or ("mean",)) if plain else ()
    check_finite([network, *sentence.after])
    config = network.config
    offset, unnumbered = _numbering(network)
    limits = []
    if getattr(config, "max_position_embeddings", None):
        limits.append(int(config.max_position_embeddings) - offset)
    # Newer folders keep the limit in the tokenizer.
    stated = sentence.max_seq_length or tokenizer.max_tokens
    if stated:
        limits.append(int(stated))
    if not limits:
        raise ExportError(
            "none of max_position_embeddings, max_seq_length and model_max_length is known"
        )
    if min(limits) < 1:
        raise ExportError(f"the model reads {min(limits)} tokens at most: its sizes are wrong")
    dimensions = int(config.hidden_size) * len(pooling)
    for module in sentence.after:
        if isinstance(module, torch.nn.Sequential):
            linear = module[0]
            if not isinstance(linear, torch.nn.Linear) or linear.in_features != dimensions:
                raise ExportError(f"a Dense module does not take {dimensions} values")
            dimensions = linear.out_features
    return Checkpoint(
        name=name,
        revision=commit,
        model=network,
        tokenizer=tokenizer.tokenizer,
        pooling=pooling,
        after_pooling=sentence.after,
        normalized=bool(sentence.after) and isinstance(sentence.after[-1], Normalize),
        dimensions=dimensions,
        max_tokens=min(limits),
        position_offset=offset,
        unnumbered_token_id=unnumbered,
        type_vocab_size=max(1, int(getattr(config, "type_vocab_size", 1) or 1)),
        pad_token_id=getattr(config, "pad_token_id", None),
        task=found,
        head=head,
        outputs=tasks.outputs(found, pooler=pooler),
        prompts=sentence.prompts,
        default_prompt_name=sentence.default_prompt_name,
    )
