"""text-classification, zero-shot-classification: labels and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from bertd import bundle
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput, RequestError
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps, at_once
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tokenization.budget import RESULT_BYTES, SCORE_BYTES, answer_budget
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

ScoreFunction = Literal["default", "softmax", "sigmoid", "none"]
HYPOTHESIS = "This example is {}."
MOST_CHARACTERS = 4_000_000  # each text is read once for each label
LONGEST_TEMPLATE = 1_000
LONGEST_LABEL = 1_000


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its score."""

    label: str
    score: float


async def classify(  # noqa: PLR0913 - the choices of one call
    model: Model,
    inputs: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    top_k: int = 0,
    score_function: ScoreFunction = "default",
) -> list[Reply[list[LabelScore]]]:
    """Score the model's labels for texts or pairs, best first.

    Args:
        model: for text-classification or zero-shot-classification.
        inputs: texts or pairs.
        fit: what to do with long inputs; no windows.
        caller: how long they wait.
        top_k: how many labels; 0 for all.
        score_function: how logits become scores; the default is as the model's config says.

    A cross-encoder's default prompt goes before each text, of a pair before the first one.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "Classify", "text-classification", "zero-shot-classification")
    problem = model.manifest.problem_type or "single_label_classification"

    def conclude(_reading: Reading, outputs: list[GraphOutputs]) -> Steps[list[LabelScore]]:
        logits = outputs[0][bundle.LOGITS]
        scores = (
            heads.class_scores(logits, problem, model.manifest.activation)
            if score_function == "default"
            else scored(logits, score_function)
        )[0]
        return at_once(_best(model.manifest.labels, scores, top_k))

    sizes = sorted(
        (SCORE_BYTES + len(label.encode()) for label in model.manifest.labels), reverse=True
    )
    size = RESULT_BYTES + sum(sizes[: top_k or None])
    query = TaskQuery(
        (bundle.LOGITS,), conclude, prompt=model.prompt(None), answer_bytes=lambda _: size
    )
    return await ask(model, inputs, fit, caller, query)


async def classify_zero_shot(  # noqa: PLR0913 - the choices of one call
    model: Model,
    texts: Sequence[Input],
    labels: Sequence[str],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    hypothesis_template: str = HYPOTHESIS,
    multi_label: bool = False,
) -> list[Reply[list[LabelScore]]]:
    """Score labels of the caller's own, by inference between text and hypothesis, best first.

    Args:
        model: for zero-shot-classification.
        texts: no pairs.
        labels: at least one, each at most :data:`LONGEST_LABEL` characters.
        fit: what to do with a text that is too long with its hypothesis: it alone is cut.
        caller: how long they wait.
        hypothesis_template: with one `{}` where the label goes; at most
            :data:`LONGEST_TEMPLATE` characters.
        multi_label: each label is judged by itself, entailment against contradiction; else all
            share one probability, if there are several.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "ZeroShotClassify", "zero-shot-classification")
    _check_labels(labels, hypothesis_template)
    _check_pairs(texts, labels, hypothesis_template, caller.answer_bytes)
    pairs = [
        Input(
            text.text,
            hypothesis_template.replace("{}", label),
            text.field,
            f"labels[{number}]",
        )
        for text in texts
        for number, label in enumerate(labels)
    ]

    def conclude(_reading: Reading, outputs: list[GraphOutputs]) -> Steps[Float32Array]:
        return at_once(outputs[0][bundle.LOGITS][0])

    fit = replace(fit, first_only=True, second_only=False)
    replies = await ask(model, pairs, fit, caller, TaskQuery((bundle.LOGITS,), conclude))
    count = len(labels)
    return [
        _together(replies[start : start + count], labels, model.manifest, multi_label=multi_label)
        for start in range(0, len(replies), count)
    ]


def scored(logits: Float32Array, function: ScoreFunction) -> Float32Array:
    """Scores of logits, of the same shape."""
    if function == "softmax":
        return heads.softmax(logits)
    return heads.sigmoid(logits) if function == "sigmoid" else logits


def _check_labels(labels: Sequence[str], template: str) -> None:
    if not labels:
        raise InvalidInput(
            "labels is empty: send at least one label", field="labels", reason="empty"
        )
    seen: set[str] = set()
    for number, label in enumerate(labels):
        if not label.strip():
            raise InvalidInput(
                f"labels[{number}] is empty: write what it says",
                field=f"labels[{number}]",
                reason="empty",
            )
        if len(label) > LONGEST_LABEL:
            raise InvalidInput(
                f"labels[{number}] has {len(label)} characters, at most {LONGEST_LABEL} are taken: "
                "name it in a few words",
                field=f"labels[{number}]",
                reason="too_long",
                limit=LONGEST_LABEL,
            )
        if label in seen:
            raise InvalidInput(
                f"labels[{number}] is {label!r}, which is there already: send each label once",
                field=f"labels[{number}]",
            )
        seen.add(label)
    if len(template) > LONGEST_TEMPLATE:
        raise InvalidInput(
            f"hypothesis_template has {len(template)} characters, at most {LONGEST_TEMPLATE} are "
            "taken: write one sentence",
            field="hypothesis_template",
            reason="too_long",
            limit=LONGEST_TEMPLATE,
        )
    if template.count("{}") != 1:
        raise InvalidInput(
            f"hypothesis_template {template!r} has {template.count('{}')} places for the label: "
            "write {} once, where it goes, as in 'This text is about {}.'",
            field="hypothesis_template",
        )


def _check_pairs(
    texts: Sequence[Input], labels: Sequence[str], template: str, answer_bytes: float
) -> None:
    """Refuse what would be too much to read, or to answer, before any pair is made."""
    written = sum(map(len, labels)) + len(labels) * len(template)
    characters = sum(text.characters for text in texts) * len(labels) + written * len(texts)
    if characters > MOST_CHARACTERS:
        raise InvalidInput(
            f"the pairs of texts and labels have {characters} characters, and a call takes at most "
            f"{MOST_CHARACTERS}: send fewer or shorter texts or labels",
            field="texts",
            reason="too_many",
            limit=MOST_CHARACTERS,
        )
    budget = answer_budget(answer_bytes)
    size = RESULT_BYTES + sum(SCORE_BYTES + len(label.encode(errors="replace")) for label in labels)
    for text in texts:
        refused = budget.spend(size, text)
        if refused is not None:
            raise refused


def _together(
    replies: Sequence[Reply[Float32Array]],
    labels: Sequence[str],
    manifest: bundle.Manifest,
    *,
    multi_label: bool,
) -> Reply[list[LabelScore]]:
    """One reply for a text, from those for its pairs with each label."""
    longest = max(replies, key=lambda reply: reply.tokens)
    logits = []
    for reply in replies:
        if isinstance(reply.outcome, RequestError):
            return Reply(reply.outcome, reply.tokens)
        logits.append(reply.outcome)
    scores = heads.zero_shot_scores(
        np.stack(logits),
        manifest.entailment_label or 0,
        manifest.contradiction_label or 0,
        multi_label=multi_label,
    )
    return Reply(
        _best(labels, scores), longest.tokens, longest.read, longest.windows, longest.trace
    )


def _best(labels: Sequence[str], scores: Float32Array, top_k: int = 0) -> list[LabelScore]:
    order = heads.largest(scores, top_k or len(scores))
    return [LabelScore(labels[place], float(scores[place])) for place in order]
