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

from bertd.bundle import ProblemType, RankingActivation, SparseRules
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


def largest(values: Float32Array, count: int) -> Int64Array:
    """Places of the largest of `[values]`, the largest first; of equal ones the first ones.

    Not all values are sorted: some thousands of many are found in the time of a pass or two.
    """
    if 0 < count < len(values):
        least = np.partition(values, -count)[-count]
        above = np.flatnonzero(values > least)
        chosen: Int64Array = np.r_[above, np.flatnonzero(values == least)[: count - len(above)]]
        if len(chosen) == count:  # fewer only where there are values that are no numbers
            return chosen[np.argsort(-values[chosen], kind="stable")]
    return np.argsort(-values, kind="stable")[:count]


def class_scores(
    logits: Float32Array, problem_type: ProblemType, activation: RankingActivation | None = None
) -> Float32Array:
    """Scores of text-classification, `[texts, labels]`.

    Softmax for a single label, sigmoid for several at once, the logits themselves for a
    regression: as transformers' pipeline does. A cross-encoder's activation goes before all that,
    as in sentence-transformers.
    """
    if activation is not None:
        return sigmoid(logits) if activation == "sigmoid" else logits
    if problem_type == "single_label_classification":
        return softmax(logits)
    return sigmoid(logits) if problem_type == "multi_label_classification" else logits


def ranking_scores(logits: Float32Array, activation: RankingActivation) -> Float32Array:
    """Scores of pairs, `[pairs]` from `[pairs, 1]`, as sentence-transformers' CrossEncoder's."""
    scores = logits[:, 0]
    return sigmoid(scores) if activation == "sigmoid" else scores


def zero_shot_scores(
    logits: Float32Array,
    entailment_label: int,
    contradiction_label: int,
    *,
    multi_label: bool = False,
) -> Float32Array:
    """Scores of the candidate labels of one text, `[labels]`.

    Args:
        logits: of the pairs (text, hypothesis about a label), `[labels, NLI labels]`.
        entailment_label: index of entailment among the NLI labels.
        contradiction_label: index of what is weighed against it.
        multi_label: judge each label alone, entailment against contradiction, rather than
            share one probability among all. A single label is always judged so, as in
            transformers' pipeline.
    """
    if not multi_label and len(logits) > 1:
        return softmax(logits[:, entailment_label])
    return softmax(logits[:, [contradiction_label, entailment_label]])[:, 1]


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
    order = largest(scores, count)
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
    best = np.stack([largest(row, count) for row in logits])
    found = np.take_along_axis(scores, best, axis=-1)
    return best if targets is None else targets[best], found


def sparse_weights(
    logits: Float32Array, cu_seqlens: Int64Array, rules: SparseRules | None = None
) -> Float32Array:
    """SPLADE's weights of the vocabulary, `[texts, vocabulary]`, none below 0.

    The largest log(1 + max(0, logit)) over a text's tokens, or the sum of them, as
    sentence-transformers' SpladePooling has it; with the activation log1p_relu the logarithm is
    taken twice. How many weights stay is not decided here: see :func:`most_active`.

    Args:
        logits: of all tokens of packed texts, `[tokens, vocabulary]`.
        cu_seqlens: int64 `[texts + 1]`, where each text starts, and the end; none is empty.
        rules: of the manifest; None for the largest, and one logarithm.
    """
    rules = rules or SparseRules()
    logarithms = 2 if rules.activation == "log1p_relu" else 1
    if rules.pooling == "max":  # the function rises: the largest logit is all that is needed
        weights: Float32Array = np.maximum.reduceat(logits, cu_seqlens[:-1], axis=0)
        return _activated(weights, logarithms)
    texts = np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens))
    sums = np.zeros((len(cu_seqlens) - 1, logits.shape[1]), np.float32)
    row = np.empty(logits.shape[1], np.float32)
    for text, values in zip(texts.tolist(), logits, strict=True):  # no copy as large as the logits
        row[:] = values
        sums[text] += _activated(row, logarithms)
    return sums


def _activated(values: Float32Array, logarithms: int) -> Float32Array:
    """log(1 + max(0, value)), in place; with two, its log(1 + …) again."""
    np.maximum(values, 0, out=values)
    for _ in range(logarithms):
        np.log1p(values, out=values)
    return values


def most_active(weights: Float32Array, count: int | None) -> Float32Array:
    """The weights of one text, `[vocabulary]`, of which so many stay and the others become 0.

    The largest of absolute value stay, as sentence-transformers' `max_active_dims` has it; of
    equal ones those with the lower index.

    Args:
        weights: not changed.
        count: above 0; None for all.
    """
    if count is None or count >= len(weights):
        return weights
    kept = largest(np.abs(weights), count)
    chosen = np.zeros_like(weights)
    chosen[kept] = weights[kept]
    return chosen
