"""Loads a checkpoint: the model in memory, and all that its folder says about how to use it."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from bertd.bundle import FirstAxis, Pooling, SparseRules, Task, TokenizerRules

from bertd_export.checkpoint import tasks
from bertd_export.checkpoint.adapters import check_adapter, merge_adapter, without_adapter
from bertd_export.checkpoint.families import check_family
from bertd_export.checkpoint.labels import NAMES_SAY, InferenceLabels
from bertd_export.checkpoint.modules import Normalize, Truncate, width_after
from bertd_export.checkpoint.positions import check_stated, longest, numbering
from bertd_export.checkpoint.preflight import (
    check_finite,
    check_folder,
    check_vocabulary,
    stored_names,
)
from bertd_export.checkpoint.sentence_transformers import read_sentence_config
from bertd_export.checkpoint.settings import check_chat_template, check_config
from bertd_export.checkpoint.source import locate, read_object
from bertd_export.checkpoint.tensors import check_left_aside, check_missing, check_sizes
from bertd_export.checkpoint.tokenizer import LoadedTokenizer, load_tokenizer
from bertd_export.errors import ExportError

_OF_PAIRS: tuple[Task, ...] = (
    "text-classification",
    "text-ranking",
    "question-answering",
    "zero-shot-classification",
)
# What of sentence-transformers opens a folder that it has not saved.
_OPENED_WITH: dict[Task, str] = {
    "feature-extraction": "SentenceTransformer",
    "text-ranking": "CrossEncoder",
}


@dataclass
class Checkpoint:
    """A model in memory and all that its folder says about how to use it.

    Of those for comparisons: `folder` is what a reference library opens, `sentence_folder` says
    whether sentence-transformers wrote it, `stock_tokenizer` is as transformers made it.
    """

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
    folder: Path
    sentence_folder: bool
    allow_pickle: bool
    stock_tokenizer: Any
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    sparse: SparseRules | None = None
    include_prompt: bool = True
    notes: tuple[str, ...] = ()
    """What whoever exports should know: settings that nobody reads, weights left aside."""
    other_tasks: tuple[Task, ...] = ()
    """What its weights can do besides."""

    @property
    def default_prompt(self) -> str:
        """What is put before a text, of a pair before the first one, unless a caller says."""
        return self.prompts.get(self.default_prompt_name or "", "")

    @property
    def inputs(self) -> set[str]:
        """Names that the model's forward accepts."""
        return set(inspect.signature(type(self.model).forward).parameters)


def _model(folder: Path, task: Task, *, allow_pickle: bool) -> tuple[Any, bool, tuple[str, ...]]:
    """The model with the task's head, whether its checkpoint holds a trained pooler, and notes."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call,unused-ignore]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    try:
        with without_adapter(folder) as base:
            model, report = tasks.loader(task).from_pretrained(
                base,
                use_safetensors=None if allow_pickle else True,
                weights_only=True,  # of a pickle: numbers, never code
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, where they can be named
                return_dict=True,  # whatever config.json asks for
                output_attentions=False,
                output_hidden_states=False,
            )
    except Exception as error:
        raise ExportError(f"{folder} cannot be loaded: {error}") from error
    check_sizes(folder, report["mismatched_keys"])
    model, brought = merge_adapter(folder, model)
    plain = task == "feature-extraction"
    poolers = {key for key in report["missing_keys"] if plain and key.startswith("pooler.")}
    unexpected = set(report["unexpected_keys"])
    prefix = f"{model.base_model_prefix}."
    missing = set(report["missing_keys"]) - poolers - brought
    check_missing(folder, task, prefix, missing, unexpected)
    notes = check_left_aside(folder, task, model, unexpected, stored_names(folder))
    trained = plain and not poolers and getattr(model, "pooler", None) is not None
    return model.eval(), trained, notes


def _check_types(task: Task, tokenizer: LoadedTokenizer, config: Any) -> None:
    """Refuse a model of pairs without an embedding for the token type of a second text.

    Raises:
        ExportError: PyTorch itself would fail on every pair.
    """
    known = getattr(config, "type_vocab_size", None)
    if task in _OF_PAIRS and tokenizer.rules.token_types and known == 1:
        raise ExportError(
            f"{tokenizer.rules.kind} gives the second text of a pair token type 1, and "
            f"type_vocab_size of the model is 1, so that PyTorch fails on every pair: list what "
            f"the model reads, without token_type_ids, under model_input_names in "
            f"tokenizer_config.json"
        )


def _check_labels(network: Any, head: tasks.Head) -> None:
    """Refuse labels that are not as many as the logits of one token or text.

    Raises:
        ExportError: their numbers differ.
    """
    if not head.labels:
        return
    with torch.inference_mode():
        ids = torch.full((1, 3), 1 + int(getattr(network.config, "pad_token_id", 0) or 0))
        width = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape[-1]
    if width != len(head.labels):
        raise ExportError(
            f"{type(network).__name__} gives {width} logits, and id2label in config.json names "
            f"{len(head.labels)} labels: name one for each logit"
        )


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
    check_adapter(sentence.transformer)
    stated_config = check_folder(sentence.transformer, allow_pickle=allow_pickle)
    check_family(stated_config)
    raw = read_object(sentence.transformer / "config.json")
    notes = sentence.notes + check_config(sentence.transformer, raw, stated_config)
    raw["id2label"] = stated_config.id2label  # as many as the loaded model's logits
    found = tasks.find_task(raw, sentence.settings, made_for=sentence.task, requested=task)
    tokenizer = load_tokenizer(sentence.transformer, lower=sentence.lower)
    check_vocabulary(sentence.transformer, tokenizer.tokenizer, int(stated_config.vocab_size))
    head = tasks.describe_head(found, raw, sentence.settings, tokenizer.mask_token_id, inference)
    _check_types(found, tokenizer, stated_config)
    library = _OPENED_WITH.get(found)
    if library is not None and sentence.task is None:
        check_chat_template(sentence.transformer, tokenizer.stock, library)
    network, pooler, left = _model(sentence.transformer, found, allow_pickle=allow_pickle)
    plain = found == "feature-extraction"
    pooling: tuple[Pooling, ...] = (sentence.pooling or ("mean",)) if plain else ()
    check_finite([network, *sentence.after])
    _check_labels(network, head)
    config = network.config
    dimensions = width_after(sentence.after, int(config.hidden_size) * len(pooling))
    if sentence.truncate_dim is not None and sentence.truncate_dim < dimensions:
        dimensions = sentence.truncate_dim
        sentence.after.append(Truncate(dimensions))
    offset, unnumbered = numbering(network)
    # Of a cross-encoder that is exported for something else, they would be before other texts.
    prompted = sentence.task == found or found in ("text-ranking", "text-classification")
    prompts = sentence.prompts if prompted else {}
    check_stated(sentence.transformer, config, offset, sentence.max_seq_length)
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
        dimensions=dimensions,
        max_tokens=longest(config, offset, stated),
        position_offset=offset,
        unnumbered_token_id=unnumbered,
        type_vocab_size=max(1, int(getattr(config, "type_vocab_size", 1) or 1)),
        pad_token_id=getattr(config, "pad_token_id", None),
        task=found,
        other_tasks=tasks.other_tasks(raw, found, made_for=sentence.task),
        head=head,
        outputs=tasks.outputs(found, pooler=pooler),
        folder=folder,
        sentence_folder=sentence.task is not None,
        allow_pickle=allow_pickle,
        stock_tokenizer=tokenizer.stock,
        prompts=prompts,
        default_prompt_name=sentence.default_prompt_name if prompts else None,
        sparse=sentence.sparse,
        include_prompt=sentence.include_prompt or not any(prompts.values()),
        notes=notes + tokenizer.notes + left,
    )
