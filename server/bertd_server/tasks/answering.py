"""question-answering: the stretches of a context that answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Int64Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.spans import WindowLogits, best_stretches
from bertd_server.tokenization.budget import Budget
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

MOST_ANSWERS = 20
ANSWER_TOKENS = 15
MOST_ANSWER_TOKENS = 128
# Every stretch is scored: of each window's tokens, `max_answer_tokens` times as many.
MOST_SPANS = 16_777_216


@dataclass(frozen=True, slots=True)
class Span:
    """An answer: its code points in the context; none, with probability `score`, if there is none.

    Attributes:
        start: first code point; 0 if the context holds no answer.
        end: after the last one; 0 if the context holds no answer.
        score: probability among all spans that were allowed.
        is_answer: whether it is a stretch of the context. A token may stand for no character, so
            that an answer may be empty.
    """

    start: int
    end: int
    score: float
    is_answer: bool = True


async def answer(  # noqa: PLR0913 - the choices of one call
    model: Model,
    pairs: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    top_k: int = 1,
    max_answer_tokens: int = ANSWER_TOKENS,
    allow_no_answer: bool = False,
) -> list[Reply[list[Span]]]:
    """Find the most probable answers to questions in their contexts, best first.

    The spans of all windows compete, each scored by the sum of its start's and its end's logit;
    equal stretches of the context count once, with their best score. The absence of an answer
    counts as in the window in which it is least likely. The probability is the softmax over all.

    Args:
        model: for question-answering.
        pairs: question and context.
        fit: what to do with long contexts.
        caller: how long they wait.
        top_k: how many; 1 to :data:`MOST_ANSWERS`.
        max_answer_tokens: longest answer; 1 to :data:`MOST_ANSWER_TOKENS`.
        allow_no_answer: whether "no answer" competes.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "Answer", "question-answering")
    if not 1 <= top_k <= MOST_ANSWERS:
        raise InvalidInput(
            f"top_k is {top_k}: ask for 1 to {MOST_ANSWERS} answers",
            field="top_k",
            reason="out_of_range",
            limit=MOST_ANSWERS,
        )
    if not 1 <= max_answer_tokens <= MOST_ANSWER_TOKENS:
        raise InvalidInput(
            f"max_answer_tokens is {max_answer_tokens}: ask for answers of 1 to "
            f"{MOST_ANSWER_TOKENS} tokens",
            field="max_answer_tokens",
            reason="out_of_range",
            limit=MOST_ANSWER_TOKENS,
        )

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[list[Span]]:
        return merge(
            reading,
            outputs,
            count=top_k,
            max_tokens=max_answer_tokens,
            allow_no_answer=allow_no_answer,
        )

    scored = Budget(MOST_SPANS, "stretches to score", "make max_answer_tokens smaller")

    def affordable(reading: Reading, one: Input) -> InvalidInput | None:
        tokens = sum(len(window.sequence) for window in reading.windows)
        return scored.spend(tokens * max_answer_tokens, one)

    query = TaskQuery(
        (bundle.START_LOGITS, bundle.END_LOGITS),
        conclude,
        offsets=True,
        check=affordable,
        answer_bytes=lambda reading: top_k * _longest_answer(reading, max_answer_tokens),
    )
    return await ask(model, pairs, fit, caller, query)


def _longest_answer(reading: Reading, max_answer_tokens: int) -> int:
    """Characters that an answer may have: its tokens may stand for long stretches."""
    points = reading.encoding.offsets[reading.encoding.texts == 1]
    if not len(points):
        return 0
    longest = int((points[:, 1] - points[:, 0]).max())
    whole = int(points[:, 1].max() - points[:, 0].min())
    return min(whole, max_answer_tokens * (longest + 1))


def merge(
    reading: Reading,
    outputs: Sequence[GraphOutputs],
    *,
    count: int,
    max_tokens: int,
    allow_no_answer: bool,
) -> Steps[list[Span]]:
    """The best spans of all windows of one context."""
    places, points = _context(reading)
    windows = []
    yield
    for window, each in zip(reading.windows, outputs, strict=True):
        # Its tokens are in their order: where they would stand in the context, and whether they do.
        found = np.searchsorted(places, window.places)
        read = np.flatnonzero(places[np.minimum(found, len(places) - 1)] == window.places)
        if len(read):
            starts, ends = each[bundle.START_LOGITS][read], each[bundle.END_LOGITS][read]
            windows.append(WindowLogits(found[read], starts, ends))
        yield
    best = yield from best_stretches(windows, points, count=count, max_tokens=max_tokens)
    if allow_no_answer:
        absence = min(each[bundle.START_LOGITS][0] + each[bundle.END_LOGITS][0] for each in outputs)
        none = np.array([-1], np.int64)
        best.add(none, none, np.array([absence], np.float32))
    stretches = zip(best.first.tolist(), best.last.tolist(), best.probabilities(), strict=True)
    return [
        Span(first, last, score) if first >= 0 else Span(0, 0, score, is_answer=False)
        for first, last, score in stretches
    ]


def _context(reading: Reading) -> tuple[Int64Array, Int64Array]:
    """The context's tokens: places among those that are read, and code points `[tokens, 2]`."""
    details = reading.encoding
    places = np.flatnonzero(details.texts == 1)
    return places, details.offsets[places].astype(np.int64)
