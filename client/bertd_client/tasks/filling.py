"""fill-mask: what fits the mask tokens of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, Stretch, how, stretch
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import TaskOptions
from bertd_client.calling.responses import each


class FillMaskOptions(TaskOptions, total=False):
    """Of ``fill_mask``."""

    top_k: int
    """How many tokens to give for each mask, best first; 5 by default, at most 1,000."""
    targets: Sequence[str]
    """Tokens to choose from, each a single one of the vocabulary; every token by default. Their
    probabilities are among all tokens in any case."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that fits a mask."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """The token as text."""
    score: float
    """Its probability."""
    sequence: str
    """The whole text with this token in place of this mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Stretch):
    """A mask and what fits it."""

    candidates: tuple[Candidate, ...]
    """Best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling(Answered):
    """What fits the masks of one text."""

    masks: tuple[Mask, ...]
    """In the order of the text."""


def _filling(result: pb.FillMaskResult, _: object) -> Filling:
    masks = tuple(
        Mask(
            candidates=tuple(
                Candidate(one.id, one.text, one.score, one.sequence) for one in mask.candidates
            ),
            **stretch(mask.offsets),
        )
        for mask in result.masks.masks
    )
    return Filling(masks=masks, **how(result))


_FILL_MASK = Rpc(
    "fill_mask", pb.FillMaskRequest, "texts", FillMaskOptions, requests.texts, each(_filling)
)


def fill_mask(texts: Sequence[str], **options: Unpack[FillMaskOptions]) -> BulkRequest[Filling]:
    """Fills the mask tokens of texts (:attr:`ModelInfo.mask_token`)."""
    targets = requests.strings(options.get("targets") or (), "targets")
    return _FILL_MASK.bulk(texts, {**options, "targets": targets})
