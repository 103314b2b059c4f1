"""fill-mask: which tokens fit where a text has a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertd import bundle
from bertd.bundle import heads

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.system.turns import give_way
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.targets import target_ids
from bertd_server.tokenization.budget import Budget, answer_budget
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading
from bertd_server.tokenization.text_queue import INLINE_CHARACTERS

MOST_CANDIDATES = 1_000
CANDIDATES = 5
# A call holds the logits of all its masks: so many values, 4 bytes each; for a vocabulary of
# 30,000 some 2,000 masks.
MOST_LOGITS = 64_000_000
_CANDIDATE_BYTES = 24  # of a candidate in an answer, beside its whole text
_DECODED = 256  # candidates in a step: some tenths of a ms


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


async def fill_masks(  # noqa: PLR0913 - options by keyword
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    top_k: int = CANDIDATES,
    targets: Sequence[str] = (),
) -> list[Reply[list[Mask]]]:
    """Find the most probable tokens for each mask of each text, masks in the text's order.

    Args:
        model: for fill-mask.
        texts: no pairs; each with the tokenizer's mask token.
        fit: what to do with long texts; no windows.
        caller: how long they wait.
        top_k: candidates of each mask; 1 to :data:`MOST_CANDIDATES`.
        targets: single tokens to choose from, in which case there may be fewer candidates; none
            for every token.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "FillMask", "fill-mask")
    if not 1 <= top_k <= MOST_CANDIDATES:
        raise InvalidInput(
            f"top_k is {top_k}: ask for 1 to {MOST_CANDIDATES} candidates",
            field="top_k",
            reason="out_of_range",
            limit=MOST_CANDIDATES,
        )
    chosen = await model.jobs.run(target_ids(model.tokenizer, targets), caller.deadline)
    count = top_k if chosen is None else min(top_k, len(chosen))
    mask_id = model.manifest.mask_token_id
    budget = Budget(
        MOST_LOGITS // model.manifest.vocab_size,
        "masks",
        "have fewer masks in a text",
    )
    await _foresee(model, texts, fit, count, budget, caller)

    def masks_of(reading: Reading) -> int:
        return int((reading.windows[0].sequence.input_ids == mask_id).sum())

    def problem(reading: Reading, one: Input) -> InvalidInput | None:
        masks = masks_of(reading)
        return budget.spend(masks, one) if masks else lacking(reading, one.field)

    def lacking(reading: Reading, field: str) -> InvalidInput:
        cut = reading.read < reading.tokens and model.mask_token in reading.source
        return InvalidInput(
            f"{field} has its mask in the part that was cut: shorten the text"
            if cut
            else f"{field} has no mask: write {model.mask_token} where a token is to be found",
            field=field,
            tokens=reading.tokens,
        )

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[list[Mask]]:
        logits = outputs[0][bundle.LOGITS]
        masks = []
        for number, stretch in enumerate(_stretches(reading, mask_id)):
            (ids,), (scores,) = heads.top_tokens(logits[number : number + 1], count, chosen)
            yield
            mask = Mask(*stretch, [])
            for id_, score in zip(ids.tolist(), scores.tolist(), strict=True):
                text = model.tokenizer.decode([id_], skip_special_tokens=False)
                mask.candidates.append(Candidate(id_, text, score))
                if not len(mask.candidates) % _DECODED:
                    yield
            masks.append(mask)
        return masks

    query = TaskQuery(
        (bundle.LOGITS,),
        conclude,
        offsets=True,
        check=problem,
        answer_bytes=lambda reading: masks_of(reading) * _mask_bytes(reading.source, count),
    )
    return await ask(model, texts, fit, caller, query)


def _stretches(reading: Reading, mask_id: int | None) -> list[tuple[int, int]]:
    """The code points of each mask that is read."""
    window = reading.windows[0]
    places = window.places[window.sequence.input_ids == mask_id]
    return [_trimmed(reading.source, *pair) for pair in reading.encoding.offsets[places].tolist()]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch without the spaces at its ends: RoBERTa's mask token takes in the one before it."""
    stretch = text[start:end]
    return end - len(stretch.lstrip()), start + len(stretch.rstrip())


def _mask_bytes(text: str, count: int) -> int:
    """Of a mask in an answer: the whole text comes with each candidate."""
    return count * (_CANDIDATE_BYTES + len(text.encode()))


async def _foresee(  # noqa: PLR0913, PLR0917 - what a call is
    model: Model,
    texts: Sequence[Input],
    fit: Fit,
    count: int,
    budget: Budget,
    caller: CallContext,
) -> None:
    """Refuse a call that has too many masks, before any text is read.

    Raises:
        InvalidInput: it has; nothing was spent.
    """
    mask_id = model.manifest.mask_token_id
    if mask_id is None or sum(len(one.text) for one in texts) <= INLINE_CHARACTERS:
        return
    masks, answers = budget.at_least(), answer_budget(caller.answer_bytes).at_least()
    for one in texts:
        known = model.least.masks(one, fit, mask_id)
        if masks.spend(known, one) is None:  # else it has an error of its own, once it is read
            answers.spend(known * _mask_bytes(one.text, count), one)
        await give_way()


def fill(text: str, mask: Mask, candidate: Candidate) -> str:
    """The text with a candidate in place of a mask."""
    return text[: mask.start] + candidate.text.strip() + text[mask.end :]
