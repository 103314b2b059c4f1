"""text-classification, zero-shot-classification: labels and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, how
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import TaskOptions
from bertd_client.calling.responses import each

ScoreFunction = Literal["softmax", "sigmoid", "none"]


class ClassifyOptions(TaskOptions, total=False):
    """Of ``classify``."""

    top_k: int
    """How many labels to give, best first; all by default."""
    score_function: ScoreFunction | None
    """How scores come from logits; as the model's config says by default."""


class ZeroShotOptions(TaskOptions, total=False):
    """Of ``classify_zero_shot``."""

    hypothesis_template: str
    """The sentence about a text that a label makes; {} stands for the label. By default
    "This example is {}."."""
    multi_label: bool
    """Whether each label is judged by itself; by default all share one probability."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its score."""

    label: str
    """As the model's config or the call names it."""
    score: float
    """A probability, or the value itself for a regression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Answered):
    """The labels of one text or pair."""

    labels: tuple[LabelScore, ...]
    """Best first."""


def _classification(result: pb.ClassifyResult, _: object) -> Classification:
    labels = tuple(LabelScore(one.label, one.score) for one in result.labels.labels)
    return Classification(labels=labels, **how(result))


_CLASSIFY = Rpc(
    "classify",
    pb.ClassifyRequest,
    "inputs",
    ClassifyOptions,
    requests.texts_or_pairs,
    each(_classification),
)
_ZERO_SHOT = Rpc(
    "classify_zero_shot",
    pb.ZeroShotClassifyRequest,
    "texts",
    ZeroShotOptions,
    requests.texts,
    each(_classification),
)


def classify(
    inputs: Sequence[str | tuple[str, str]], **options: Unpack[ClassifyOptions]
) -> BulkRequest[Classification]:
    """Scores the model's labels for texts or pairs of texts."""
    return _CLASSIFY.bulk(inputs, options)


def classify_zero_shot(
    texts: Sequence[str], labels: Sequence[str], **options: Unpack[ZeroShotOptions]
) -> BulkRequest[Classification]:
    """Scores labels of your own, by inference between text and label."""
    names = requests.strings(labels, "labels")
    # Each label of each text counts as an input of the call.
    return _ZERO_SHOT.bulk(texts, options, weight=max(1, len(names)), labels=names)
