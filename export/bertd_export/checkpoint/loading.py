"""Loads a checkpoint: the model in memory, and all that its folder says about how to use it."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from bertd.bundle import FirstAxis, Pooling, Task, TokenizerRules
from transformers import AutoConfig

from bertd_export.checkpoint import tasks
from bertd_export.checkpoint.families import check_family
from bertd_export.checkpoint.labels import NAMES_SAY, InferenceLabels
from bertd_export.checkpoint.positions import longest, numbering
from bertd_export.checkpoint.preflight import (
    check_finite,
    check_folder,
    check_unexpected,
    check_vocabulary,
)
from bertd_export.checkpoint.sentence_transformers import Normalize, read_sentence_config
from bertd_export.checkpoint.source import locate, read_object
from bertd_export.checkpoint.tokenizer import load_tokenizer
from bertd_export.errors import ExportError


@dataclass
class Checkpoint:
    """A model in memory and all that its folder says about how to use it."""

    name: str
    revision: str | None
    model: Any
    tokenizer: tokenizers.Tokenizer
    rules: TokenizerRules
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
    outputs: dict[str, FirstAxis]
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    @property
    def inputs(self) -> set[str]:
        """Names that the model's forward accepts."""
        return set(inspect.signature(type(self.model).forward).parameters)


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


def _dimensions(pooled: int, after: list[torch.nn.Module]) -> int:
    """Width of the sentence embedding that the modules behind pooling make of the pooled rows."""
    dimensions = pooled
    for module in after:
        if isinstance(module, torch.nn.Sequential):
            linear = module[0]
            if not isinstance(linear, torch.nn.Linear) or linear.in_features != dimensions:
                raise ExportError(f"a Dense module does not take {dimensions} values")
            dimensions = linear.out_features
    return dimensions


def load(
    model: str,
    task: str | None = None,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    inference: InferenceLabels = NAMES_SAY,
) -> Checkpoint:
    """Load a checkpoint from a folder or from the hub.

    Args:
        model: a folder, or a hub id.
        task: one of :data:`bertd_export.checkpoint.tasks.TASKS`; by default the checkpoint's own.
        revision: branch, tag or commit on the hub.
        allow_pickle: read pickled weights where there are no safetensors; still no code is run.
        inference: of zero-shot-classification, what its labels are called.

    Raises:
        ExportError: it cannot be read, or it asks for something that a bundle cannot do.
    """
    folder, name, commit = locate(model, revision=revision, allow_pickle=allow_pickle)
    sentence = read_sentence_config(folder, allow_pickle=allow_pickle)
    check_folder(sentence.transformer, allow_pickle=allow_pickle)
    stated_config = _config(sentence.transformer)
    check_family(stated_config)
    raw = read_object(sentence.transformer / "config.json")
    pooled = sentence.pooling is not None
    found = tasks.find_task(raw, sentence.settings, pooled=pooled, requested=task)
    tokenizer = load_tokenizer(sentence.transformer, lower=sentence.lower)
    check_vocabulary(sentence.transformer, tokenizer.tokenizer, int(stated_config.vocab_size))
    head = tasks.describe_head(found, raw, sentence.settings, tokenizer.mask_token_id, inference)
    network, pooler = _model(sentence.transformer, found, allow_pickle=allow_pickle)
    plain = found == "feature-extraction"
    pooling: tuple[Pooling, ...] = (sentence.pooling or ("mean",)) if plain else ()
    check_finite([network, *sentence.after])
    config = network.config
    offset, unnumbered = numbering(network)
    # Newer folders keep the limit in the tokenizer.
    stated = sentence.max_seq_length or tokenizer.max_tokens
    return Checkpoint(
        name=name,
        revision=commit,
        model=network,
        tokenizer=tokenizer.tokenizer,
        rules=tokenizer.rules,
        pooling=pooling,
        after_pooling=sentence.after,
        normalized=bool(sentence.after) and isinstance(sentence.after[-1], Normalize),
        dimensions=_dimensions(int(config.hidden_size) * len(pooling), sentence.after),
        max_tokens=longest(config, offset, stated),
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
