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
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.targets import target_ids
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

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
    budget = _Budget(model.manifest.vocab_size, count, caller.answer_bytes)

    def problem(reading: Reading, one: Input) -> InvalidInput | None:
        masks = int((reading.windows[0].sequence.input_ids == mask_id).sum())
        return budget.refusal(reading, masks, one.field) if masks else lacking(reading, one.field)

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

    query = TaskQuery((bundle.LOGITS,), conclude, offsets=True, check=problem)
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


class _Budget:
    """What the masks of a call may cost: logits, and bytes of the answer."""

    def __init__(self, vocabulary: int, top_k: int, answer_bytes: float) -> None:
        self._vocabulary = vocabulary
        self._top_k = top_k
        self._answer_bytes = answer_bytes
        self._logits = 0
        self._written = 0

    def refusal(self, reading: Reading, masks: int, field: str) -> InvalidInput | None:
        """Why so many masks of a text cannot be filled too; None, and they count, if they can."""
        logits = self._logits + masks * self._vocabulary
        each = _CANDIDATE_BYTES + len(reading.source.encode())
        written = self._written + masks * self._top_k * each
        if logits > MOST_LOGITS:
            limit = MOST_LOGITS // self._vocabulary
            why = f"a call may have {limit} masks: send fewer texts a call, or fewer masks"
        elif written > self._answer_bytes:
            limit = int(self._answer_bytes)
            why = (
                f"the whole text comes with each candidate, {written} bytes with those before, and "
                f"an answer has at most {limit}: make top_k smaller, send fewer texts a call, or "
                "have the server started with a larger --max-message-bytes"
            )
        else:
            self._logits, self._written = logits, written
            return None
        return InvalidInput(
            f"{field} has {masks} masks, which are too many for this call: {why}",
            field=field,
            tokens=reading.tokens,
            reason="too_many",
            limit=limit,
        )


def fill(text: str, mask: Mask, candidate: Candidate) -> str:
    """The text with a candidate in place of a mask."""
    return text[: mask.start] + candidate.text.strip() + text[mask.end :]
