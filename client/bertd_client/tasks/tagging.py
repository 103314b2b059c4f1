"""token-classification: entities in texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, Stretch, how, stretch
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import WindowOptions
from bertd_client.calling.responses import each

Aggregation = Literal["none", "simple", "first", "average", "max"]


class TagOptions(WindowOptions, total=False):
    """Of ``tag``."""

    aggregation: Aggregation
    """How tokens become entities, as in transformers' pipelines; "simple" by default."""
    include_outside: bool
    """Whether to give what is labelled "O", no entity, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity(Stretch):
    """An entity, or a token with its label where nothing is aggregated."""

    label: str
    """Such as "PER", or "B-PER" where nothing is aggregated."""
    score: float
    """Probability of the label."""
    text: str
    """That part of the text."""
    word: str
    """The tokens written together, as the tokenizer's decoder does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging(Answered):
    """What was found in one text."""

    entities: tuple[Entity, ...]
    """In the order of the text."""


def _tagging(result: pb.TagTokensResult, _: object) -> Tagging:
    entities = tuple(
        Entity(
            label=one.label,
            score=one.score,
            text=one.text,
            word=one.word,
            **stretch(one.offsets),
        )
        for one in result.entities.entities
    )
    return Tagging(entities=entities, **how(result))


_TAG = Rpc("tag", pb.TagTokensRequest, "texts", TagOptions, requests.texts, each(_tagging))


def tag(texts: Sequence[str], **options: Unpack[TagOptions]) -> BulkRequest[Tagging]:
    """Finds entities in texts."""
    return _TAG.bulk(texts, options)
