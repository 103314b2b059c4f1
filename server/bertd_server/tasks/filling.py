"""fill-mask: which tokens fit where a text has a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertd import bundle, heads

from bertd_server.errors import InvalidInput
from bertd_server.model import Model
from bertd_server.reading import FIT, Fit, Input, Reading
from bertd_server.tasks.ask import CALLER, Caller, Outputs, Question, Reply, ask, require

MOST_CANDIDATES = 1_000
CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that fits, as text, with its probability."""

    id: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask: its code points in the text, and what fits, best first."""

    start: int
    end: int
    candidates: list[Candidate]


async def fill_masks(
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: Caller = CALLER,
    *,
    top_k: int = CANDIDATES,
) -> list[Reply[list[Mask]]]:
    """Find the most probable tokens for each mask of each text, masks in the text's order.

    Args:
        model: for fill-mask.
        texts: no pairs; each with the tokenizer's mask token.
        fit: what to do with long texts; no windows.
        caller: how long they wait.
        top_k: candidates of each mask; 1 to :data:`MOST_CANDIDATES`.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "FillMask", "fill-mask")
    if not 1 <= top_k <= MOST_CANDIDATES:
        raise InvalidInput(
            f"top_k is {top_k}: ask for 1 to {MOST_CANDIDATES} candidates", field="top_k"
        )
    mask_id = model.manifest.mask_token_id

    def lacking(reading: Reading, field: str) -> InvalidInput | None:
        if mask_id in reading.windows[0].sequence.input_ids:
            return None
        cut = mask_id in reading.encoding.ids
        return InvalidInput(
            f"{field} has its mask in the part that was cut: shorten the text"
            if cut
            else f"{field} has no mask: write {model.mask_token} where a token is to be found",
            field=field,
            tokens=reading.tokens,
        )

    def conclude(reading: Reading, outputs: Sequence[Outputs]) -> list[Mask]:
        window = reading.windows[0]
        places = window.places[window.sequence.input_ids == mask_id]
        ids, scores = heads.top_tokens(outputs[0][bundle.LOGITS], top_k)
        offsets = reading.encoding.offsets
        return [
            Mask(
                offsets[place][0],
                offsets[place][1],
                [
                    Candidate(id_, model.tokenizer.decode([id_], skip_special_tokens=False), score)
                    for id_, score in zip(mine.tolist(), values.tolist(), strict=True)
                ],
            )
            for place, mine, values in zip(places.tolist(), ids, scores, strict=True)
        ]

    question = Question((bundle.LOGITS,), conclude, offsets=True, check=lacking)
    return await ask(model, texts, fit, caller, question)


def fill(text: str, mask: Mask, candidate: Candidate) -> str:
    """The text with a candidate in place of a mask."""
    return text[: mask.start] + candidate.text.strip() + text[mask.end :]
