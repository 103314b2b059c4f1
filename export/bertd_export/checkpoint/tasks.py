"""Which task a checkpoint is for, and what its config says about the answers.

::

    config.json ──find_task──> task ──describe_head──> labels, problem type, activation, …
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import transformers
from bertd.bundle import (
    END_LOGITS,
    LOGITS,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    START_LOGITS,
    TOKEN_EMBEDDINGS,
    FirstAxis,
    LabelScheme,
    ProblemType,
    RankingActivation,
    Task,
)

from bertd_export.checkpoint.labels import (
    NAMES_SAY,
    InferenceLabels,
    inference_labels,
    label_scheme,
)
from bertd_export.errors import ExportError

TASKS: tuple[Task, ...] = get_args(Task)

_LOADERS: dict[Task, Any] = {
    "feature-extraction": transformers.AutoModel,
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-ranking": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "fill-mask": transformers.AutoModelForMaskedLM,
    "zero-shot-classification": transformers.AutoModelForSequenceClassification,
}
# A class for pre-training holds an encoder and heads that no task here reads.
_ARCHITECTURES: dict[str, Task] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "feature-extraction",
    "Model": "feature-extraction",
}
_TOKEN_OUTPUTS: dict[Task, dict[str, FirstAxis]] = {
    "token-classification": {LOGITS: "tokens"},
    "question-answering": {START_LOGITS: "tokens", END_LOGITS: "tokens"},
    "fill-mask": {LOGITS: "masks"},
}
_PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)
_SIGMOID = "Sigmoid"
_IDENTITY = "Identity"
_OLD_ACTIVATION = "sbert_ce_default_activation_function"


@dataclass(frozen=True)
class Head:
    """What the manifest says about a task's logits; see :class:`bertd.bundle.Manifest`."""

    labels: tuple[str, ...] = ()
    label_scheme: LabelScheme | None = None
    problem_type: ProblemType | None = None
    activation: RankingActivation | None = None
    entailment_label: int | None = None
    contradiction_label: int | None = None
    mask_token_id: int | None = None


def _refusal(reason: str) -> ExportError:
    return ExportError(f"{reason}; tasks: {', '.join(TASKS)}")


def loader(task: Task) -> Any:
    """The transformers class that loads a checkpoint with the task's head."""
    return _LOADERS[task]


def outputs(task: Task, *, pooler: bool = False) -> dict[str, FirstAxis]:
    """Outputs of the task's graph in order, and what the first axis of each counts."""
    if task == "feature-extraction":
        rows: dict[str, FirstAxis] = {SENTENCE_EMBEDDING: "sequences", TOKEN_EMBEDDINGS: "tokens"}
        return {**rows, POOLER_OUTPUT: "sequences"} if pooler else rows
    return _TOKEN_OUTPUTS.get(task, {LOGITS: "sequences"})


def is_cross_encoder(config: Mapping[str, Any], sentence: Mapping[str, Any]) -> bool:
    """Whether sentence-transformers' CrossEncoder wrote this checkpoint.

    Args:
        config: the checkpoint's ``config.json``.
        sentence: its ``config_sentence_transformers.json``, or nothing.
    """
    return (
        sentence.get("model_type") == "CrossEncoder"
        or "sentence_transformers" in config
        or _OLD_ACTIVATION in config
    )


def find_task(
    config: Mapping[str, Any],
    sentence: Mapping[str, Any],
    *,
    made_for: Task | None = None,
    requested: str | None = None,
) -> Task:
    """The task that was asked for, or else the one that the checkpoint was trained for.

    A classifier with one logit ranks texts unless its config calls it a regression; a
    cross-encoder with one logit always does.

    Args:
        config: the checkpoint's ``config.json``.
        sentence: its ``config_sentence_transformers.json``, or nothing.
        made_for: the only task that its sentence-transformers modules can do; None where they
            leave it open.
        requested: the user's choice.

    Raises:
        ExportError: there is no such task, or the checkpoint does not name one.
    """
    if requested is not None:
        chosen = next((task for task in TASKS if task == requested), None)
        if chosen is None:
            raise _refusal(f"{requested!r} is not a task")
        if made_for not in (None, chosen):
            kind = "pooling" if made_for == "feature-extraction" else "SpladePooling"
            raise _refusal(f"a sentence-transformers model with {kind} cannot do {chosen}")
        return chosen
    if made_for is not None:
        return made_for
    architectures = config.get("architectures") or ["Model"]
    endings = [end for end in _ARCHITECTURES if str(architectures[0]).endswith(end)]
    if not endings:
        raise _refusal(f"{architectures[0]} is for none of the tasks, so choose one with --task")
    task = _ARCHITECTURES[endings[0]]
    regression = config.get("problem_type") == "regression"
    if (
        task == "text-classification"
        and len(_labels(config)) == 1
        and (is_cross_encoder(config, sentence) or not regression)
    ):
        return "text-ranking"
    return task


def other_tasks(
    config: Mapping[str, Any], task: Task, *, made_for: Task | None = None
) -> tuple[Task, ...]:
    """The tasks that a checkpoint's weights can do besides the one that it is exported for.

    Args:
        config: the checkpoint's ``config.json``.
        task: as :func:`find_task` found it.
        made_for: the only task that its sentence-transformers modules can do.
    """
    if made_for is not None:
        return ()
    named = str((config.get("architectures") or ["Model"])[0])
    own = next((found for end, found in _ARCHITECTURES.items() if named.endswith(end)), None)
    able: list[Task] = [] if own is None else [own]
    if own == "text-classification":
        labels = _labels(config)
        if len(labels) == 1:
            able.append("text-ranking")
        if any(label.lower().startswith("entail") for label in labels):
            able.append("zero-shot-classification")
    able.append("feature-extraction")
    return tuple(one for one in dict.fromkeys(able) if one != task)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label")
    if not named:
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    try:
        by_id = {int(index): str(label) for index, label in named.items()}
    except (AttributeError, ValueError) as error:
        raise ExportError(f"id2label in config.json cannot be read: {error}") from error
    if sorted(by_id) != list(range(len(by_id))):
        raise ExportError(
            f"id2label in config.json does not number its labels from 0: {by_id}; "
            f"number them 0 to {len(by_id) - 1}, one for each logit"
        )
    return tuple(by_id[index] for index in range(len(by_id)))


def _problem_type(config: Mapping[str, Any], labels: tuple[str, ...]) -> ProblemType:
    given = config.get("problem_type") or "single_label_classification"
    for known in _PROBLEM_TYPES:
        if given == known:
            # transformers' pipeline takes the sigmoid of a lone logit that is no regression
            alone = len(labels) == 1 and known == "single_label_classification"
            return "multi_label_classification" if alone else known
    raise ExportError(f"problem_type {given!r} is not one of {', '.join(_PROBLEM_TYPES)}")


def _activation(
    config: Mapping[str, Any], sentence: Mapping[str, Any], labels: tuple[str, ...]
) -> RankingActivation:
    """The activation that sentence-transformers' CrossEncoder applies to its logits."""
    inner = config.get("sentence_transformers") or {}
    stated = {
        "config_sentence_transformers.json: activation_fn": sentence.get("activation_fn"),
        "config.json: sentence_transformers.activation_fn": inner.get("activation_fn"),
        f"config.json: {_OLD_ACTIVATION}": config.get(_OLD_ACTIVATION),
    }
    default = f"torch.nn.{_SIGMOID if len(labels) == 1 else _IDENTITY}"
    key, path = next(((key, path) for key, path in stated.items() if path), ("", default))
    name = str(path).rpartition(".")[2]
    if not str(path).startswith("torch.nn.") or name not in (_SIGMOID, _IDENTITY):
        raise ExportError(
            f"{key} is {path}, which is not supported of a cross-encoder: a bundle gives "
            f"torch.nn.{_SIGMOID} or torch.nn.{_IDENTITY} (the logits, of which a request may ask "
            f"for the softmax)"
        )
    return "sigmoid" if name == _SIGMOID else "identity"


def describe_head(
    task: Task,
    config: Mapping[str, Any],
    sentence: Mapping[str, Any],
    mask_token_id: int | None,
    inference: InferenceLabels = NAMES_SAY,
) -> Head:
    """What the manifest records about the task's logits.

    Raises:
        ExportError: the checkpoint cannot do the task.
    """
    if task != "zero-shot-classification" and inference != NAMES_SAY:
        raise ExportError(
            "--entailment-label and --contradiction-label are for --task zero-shot-classification, "
            f"not for {task}"
        )
    if task in ("feature-extraction", "question-answering"):
        return Head()
    if task == "fill-mask":
        if mask_token_id is None:
            raise _refusal("fill-mask needs a tokenizer with a mask token; this one has none")
        return Head(mask_token_id=mask_token_id)
    labels = _labels(config)
    if task == "token-classification":
        return Head(labels, label_scheme=label_scheme(labels))
    if task == "zero-shot-classification":
        entailment, contradiction = inference_labels(labels, inference)
        return Head(
            labels,
            problem_type=_problem_type(config, labels),  # of Classify
            entailment_label=entailment,
            contradiction_label=contradiction,
        )
    if task == "text-ranking":
        if len(labels) != 1:
            raise _refusal(f"text-ranking needs one logit, the model has {len(labels)}")
        return Head(labels, activation=_activation(config, sentence, labels))
    activation = None
    if is_cross_encoder(config, sentence):
        activation = _activation(config, sentence, labels)
    return Head(labels, problem_type=_problem_type(config, labels), activation=activation)
