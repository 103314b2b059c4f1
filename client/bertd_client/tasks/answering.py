"""question-answering: spans of contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, Stretch, how, stretch
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import WindowOptions
from bertd_client.calling.responses import each


class AnswerOptions(WindowOptions, total=False):
    """Of ``answer``."""

    top_k: int
    """How many answers to give, best first; 1 by default, at most 20."""
    max_answer_tokens: int
    """Longest answer, in tokens; 15 by default."""
    allow_no_answer: bool
    """Whether "there is no answer" competes with the spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Stretch):
    """An answer and where it stands in the context."""

    text: str
    """That part of the context; empty if there is no answer."""
    score: float
    """Probability among all spans that were allowed."""
    no_answer: bool
    """Whether this says that the context holds no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers(Answered):
    """The answers to one question."""

    spans: tuple[Span, ...]
    """Best first."""


def _answers(result: pb.AnswerResult, _: object) -> Answers:
    spans = tuple(
        Span(text=one.text, score=one.score, no_answer=one.no_answer, **stretch(one.offsets))
        for one in result.spans.spans
    )
    return Answers(spans=spans, **how(result))


_ANSWER = Rpc(
    "answer", pb.AnswerRequest, "inputs", AnswerOptions, requests.questions, each(_answers)
)


def answer(
    inputs: Sequence[tuple[str, str]], **options: Unpack[AnswerOptions]
) -> BulkRequest[Answers]:
    """Answers questions, each given as (question, context), from their contexts."""
    return _ANSWER.bulk(inputs, options)
