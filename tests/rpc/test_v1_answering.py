"""Answer against PyTorch's logits with SQuAD's post-processing, written out plainly here.

The reference knows nothing of ours: it loops over windows, starts and ends, as the evaluation
scripts of SQuAD do, and keeps for each stretch of the context the best score of any window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from bertd_server.tasks import answering
from bertd_server.tasks.answering import Span
from bertd_server.tokenization.reader import Fit, Input
from helpers.sentences import SENTENCES
from helpers.served import Served, long_enough, serving

QUESTIONS = ("Where does it leave from?", "누가 이사했습니까?", "Quand ?", "🙂?", "who")
PAIRS = [(QUESTIONS[n % len(QUESTIONS)], text) for n, text in enumerate(SENTENCES)]
STRETCH = tuple[int, int] | None  # code points; None says that there is no answer


@pytest.fixture(scope="module", params=["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """WordPiece; and BPE, of which several tokens may stand for one character."""
    with serving(tmp_path_factory, request.param, "question-answering", num_labels=2) as served:
        yield served


def squad(  # noqa: PLR0913 - it repeats the request
    served: Served,
    question: str,
    context: str,
    *,
    longest: int,
    stride: int = 0,
    no_answer: bool = False,
) -> tuple[dict[STRETCH, float], int]:
    """The probability of each stretch of the context, and how many windows were read."""
    first = served.tokenizer(question)["input_ids"]
    encoding = served.tokenizer(
        context, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    second, offsets = encoding["input_ids"], encoding["offset_mapping"]
    room = served.model.manifest.max_tokens - len(first) - 1
    scores: dict[STRETCH, float] = {}
    absences = []
    begin = windows = 0
    while True:
        part = second[begin : begin + room]
        types = [0] * len(first) + [1] * (len(part) + 1)
        logits = served.forward([*first, *part, first[-1]], types)
        starts, ends = logits["start_logits"], logits["end_logits"]
        absences.append(float(starts[0] + ends[0]))
        for left in range(len(part)):
            for right in range(left, min(left + longest, len(part))):
                score = float(starts[len(first) + left] + ends[len(first) + right])
                stretch = (offsets[begin + left][0], offsets[begin + right][1])
                scores[stretch] = max(score, scores.get(stretch, -math.inf))
        windows += 1
        if begin + room >= len(second):
            break
        begin += room - stride
    if no_answer:
        scores[None] = min(absences)
    highest = max(scores.values())
    total = sum(math.exp(score - highest) for score in scores.values())
    return {key: math.exp(score - highest) / total for key, score in scores.items()}, windows


def compare(spans: list[Span], expected: dict[STRETCH, float], count: int) -> None:
    """The n best: their probabilities in order, and each that of its own stretch."""
    best = sorted(expected.values(), reverse=True)[:count]
    np.testing.assert_allclose([one.score for one in spans], best, rtol=0, atol=1e-4)
    found: list[STRETCH] = [(one.start, one.end) if one.is_answer else None for one in spans]
    assert len(set(found)) == len(found)
    for stretch, one in zip(found, spans, strict=True):
        assert one.score == pytest.approx(expected[stretch], rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("no_answer", [False, True])
def test_the_best_spans_are_those_of_squads_rules(reader: Served, *, no_answer: bool) -> None:
    """50 questions and contexts, the 5 best of each."""
    ours = reader.ask(
        answering.answer(
            reader.model,
            [Input(*pair) for pair in PAIRS],
            top_k=5,
            max_answer_tokens=8,
            allow_no_answer=no_answer,
        )
    )
    for (question, context), spans in zip(PAIRS, ours, strict=True):
        expected, _ = squad(reader, question, context, longest=8, no_answer=no_answer)
        compare(spans, expected, 5)


@pytest.mark.parametrize("stride", [0, 50])
def test_the_windows_of_a_long_context_compete(reader: Served, stride: int) -> None:
    """3,000 tokens; where windows overlap a stretch counts once."""
    context, _ = long_enough(reader, 3_000)
    question = "Which harbour?"
    (reply,) = reader.runner.run(
        answering.answer(
            reader.model,
            [Input(question, context)],
            Fit("window", stride=stride, second_only=True),
            top_k=20,
            allow_no_answer=True,
        )
    )
    expected, windows = squad(reader, question, context, longest=15, stride=stride, no_answer=True)
    assert reply.windows == windows
    assert isinstance(reply.outcome, list)
    compare(reply.outcome, expected, 20)
