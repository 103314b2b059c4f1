"""From logits to answers: all arithmetic that follows the graph, in pure numpy functions.

::

    text-classification        logits [texts, labels]   class_scores
    text-ranking               logits [texts, 1]        ranking_scores
    zero-shot-classification   logits [labels, NLI]     zero_shot_scores
    token-classification       logits [tokens, labels]  token_labels
    question-answering         logits [tokens], twice   best_spans
    fill-mask                  logits [masks, vocab]    top_tokens
                               logits [tokens, vocab]   sparse_weights

The graph ends at the logits, so that its parity with PyTorch is measured on them. The server
answers with these functions and ``bertd export --evaluate`` scores with them; neither imports the
other, so they live here, beside the manifest that says which one a bundle needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertd.bundle import ProblemType, RankingActivation
from bertd.bundle.arrays import Float32Array, Int64Array


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """An answer: tokens `start` to `end`, both included; `(0, 0)` with `is_answer` false if none.

    `probability` is among all spans that were allowed, and the absence of an answer if it was.
    """

    start: int
    end: int
    probability: float
    is_answer: bool = True


def softmax(logits: Float32Array) -> Float32Array:
    """Probabilities along the last axis, of the same shape."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Float32Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: Float32Array) -> Float32Array:
    """The logistic function of each value; large values of either sign do not overflow."""
    small = np.exp(-np.abs(logits))
    result: Float32Array = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return result


def class_scores(logits: Float32Array, problem_type: ProblemType) -> Float32Array:
    """Scores of text-classification, `[texts, labels]`.

    Softmax for a single label, sigmoid for several at once, the logits themselves for a
    regression: as transformers' pipeline does.
    """
    if problem_type == "single_label_classification":
        return softmax(logits)
    return sigmoid(logits) if problem_type == "multi_label_classification" else logits


def ranking_scores(logits: Float32Array, activation: RankingActivation) -> Float32Array:
    """Scores of pairs, `[pairs]` from `[pairs, 1]`, as sentence-transformers' CrossEncoder's."""
    scores = logits[:, 0]
    return sigmoid(scores) if activation == "sigmoid" else scores


def zero_shot_scores(
    logits: Float32Array, entailment_label: int, *, multi_label: bool = False
) -> Float32Array:
    """Scores of the candidate labels of one text, `[labels]`.

    Args:
        logits: of the pairs (text, hypothesis about a label), `[labels, NLI labels]`.
        entailment_label: index of entailment among the NLI labels.
        multi_label: judge each label alone, entailment against contradiction, rather than
            share one probability among all. Contradiction is the last NLI label, or the first
            where entailment is not it, as in transformers' pipeline.
    """
    if not multi_label:
        return softmax(logits[:, entailment_label])
    contradiction = -1 if entailment_label == 0 else 0
    return softmax(logits[:, [contradiction, entailment_label]])[:, 1]


def token_labels(logits: Float32Array) -> tuple[Int64Array, Float32Array]:
    """The best label of each token and its probability, both `[tokens]`, from `[tokens, labels]`.

    Equal logits give the label with the lower index.
    """
    best = logits.argmax(axis=-1)
    return best, np.take_along_axis(softmax(logits), best[:, None], axis=-1)[:, 0]


@dataclass(frozen=True, slots=True)
class ScoredSpans:
    """Every allowed span of one sequence, and what the absence of an answer scores.

    Attributes:
        starts: int64 `[spans]`, first tokens, ascending; of one start, shorter spans first.
        ends: int64 `[spans]`, last tokens.
        scores: float32 `[spans]`.
        absence: score of "no answer".
    """

    starts: Int64Array
    ends: Int64Array
    scores: Float32Array
    absence: float


def scored_spans(
    start_logits: Float32Array,
    end_logits: Float32Array,
    context: NDArray[np.bool_],
    *,
    max_tokens: int,
) -> ScoredSpans:
    """Score all spans of question-answering.

    As SQuAD's reference does, a span scores the sum of its start's and its end's logit, and the
    absence of an answer scores that sum at the first token, `[CLS]`.

    Args:
        start_logits: `[tokens]` of one question with its context.
        end_logits: `[tokens]`.
        context: `[tokens]`, true where an answer may start or end.
        max_tokens: longest answer.
    """
    places = np.flatnonzero(context)
    first = places[:, None]
    last = first + np.arange(min(max_tokens, len(context)))
    allowed = last < len(context)
    allowed[allowed] = context[last[allowed]]
    rows, columns = np.nonzero(allowed)
    starts, ends = places[rows], last[rows, columns]
    scores = start_logits[starts] + end_logits[ends]
    return ScoredSpans(starts, ends, scores, float(start_logits[0] + end_logits[0]))


def best_spans(  # noqa: PLR0913 - limits by keyword
    start_logits: Float32Array,
    end_logits: Float32Array,
    context: NDArray[np.bool_],
    *,
    max_tokens: int,
    count: int = 1,
    allow_no_answer: bool = False,
) -> list[TokenSpan]:
    """The most probable answers of question-answering, best first.

    The probability is the softmax of all allowed spans, scored as by :func:`scored_spans`.

    Args:
        start_logits: `[tokens]` of one question with its context.
        end_logits: `[tokens]`.
        context: `[tokens]`, true where an answer may start or end.
        max_tokens: longest answer.
        count: how many spans at most.
        allow_no_answer: whether "no answer" competes (SQuAD 2).

    Raises:
        ValueError: nothing is allowed: no token of context, and no absence of an answer.
    """
    spans = scored_spans(start_logits, end_logits, context, max_tokens=max_tokens)
    first, last, scores = spans.starts, spans.ends, spans.scores
    if allow_no_answer:
        scores = np.append(scores, np.float32(spans.absence))
    if not scores.size:
        raise ValueError("no span is allowed: context has no token, and no answer is not allowed")
    probabilities = softmax(scores)
    order = np.argsort(-scores, kind="stable")[:count]
    return [
        TokenSpan(int(first[index]), int(last[index]), float(probabilities[index]))
        if index < len(first)
        else TokenSpan(0, 0, float(probabilities[index]), is_answer=False)
        for index in order
    ]


def top_tokens(
    logits: Float32Array, count: int, targets: Int64Array | None = None
) -> tuple[Int64Array, Float32Array]:
    """The most probable tokens of each mask and their probabilities, both `[masks, count]`.

    Best first; equal logits give the lower token id first.

    Args:
        logits: `[masks, vocabulary]`.
        count: how many tokens; at most the vocabulary, or as many as there are targets.
        targets: int64 `[tokens]`, ids to choose from, ascending; their probabilities are still
            among all tokens, as in transformers' pipeline. None for every token.
    """
    scores = softmax(logits)
    if targets is not None:
        logits, scores = logits[:, targets], scores[:, targets]
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    found = np.take_along_axis(scores, best, axis=-1)
    return best if targets is None else targets[best], found


def sparse_weights(logits: Float32Array, cu_seqlens: Int64Array) -> Float32Array:
    """SPLADE's weights of the vocabulary, `[texts, vocabulary]`, none below 0.

    The largest log(1 + max(0, logit)) over a text's tokens. The function rises, so that the
    largest logit is all that is needed of each.

    Args:
        logits: of all tokens of packed texts, `[tokens, vocabulary]`.
        cu_seqlens: int64 `[texts + 1]`, where each text starts, and the end; none is empty.
    """
    weights: Float32Array = np.maximum.reduceat(logits, cu_seqlens[:-1], axis=0)
    np.maximum(weights, 0, out=weights)
    return np.log1p(weights, out=weights)
