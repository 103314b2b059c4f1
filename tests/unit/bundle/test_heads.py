"""The arithmetic after the logits, against PyTorch and by exhaustion."""

import math

import numpy as np
import pytest
import torch
from bertd.bundle import SparseRules, heads
from hypothesis import given
from hypothesis import strategies as st

LOGITS = np.random.default_rng(0).normal(0, 4, (6, 5)).astype(np.float32)


def close(got: np.ndarray, want: torch.Tensor) -> None:
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-7)


def test_softmax_and_sigmoid_are_torchs_and_do_not_overflow() -> None:
    for scale in (1, 1e3):
        logits = (LOGITS * scale).astype(np.float32)
        close(heads.softmax(logits), torch.from_numpy(logits).softmax(-1))
        close(heads.sigmoid(logits), torch.from_numpy(logits).sigmoid())


def test_the_problem_type_chooses_the_scores() -> None:
    tensor = torch.from_numpy(LOGITS)
    close(heads.class_scores(LOGITS, "single_label_classification"), tensor.softmax(-1))
    close(heads.class_scores(LOGITS, "multi_label_classification"), tensor.sigmoid())
    close(heads.class_scores(LOGITS, "regression"), tensor)


def test_the_activation_chooses_the_ranking_score() -> None:
    tensor = torch.from_numpy(LOGITS[:, 0])
    close(heads.ranking_scores(LOGITS[:, :1], "sigmoid"), tensor.sigmoid())
    close(heads.ranking_scores(LOGITS[:, :1], "identity"), tensor)


@pytest.mark.parametrize(("entailment", "contradiction"), [(0, 4), (2, 0), (1, 2)])
def test_zero_shot_scores_share_or_stand_alone(entailment: int, contradiction: int) -> None:
    """A single candidate has nothing to share with, and stands alone whatever is asked."""
    tensor = torch.from_numpy(LOGITS)
    alone = tensor[:, [contradiction, entailment]].softmax(-1)[:, 1]
    close(
        heads.zero_shot_scores(LOGITS, entailment, contradiction),
        tensor[:, entailment].softmax(0),
    )
    close(heads.zero_shot_scores(LOGITS, entailment, contradiction, multi_label=True), alone)
    close(heads.zero_shot_scores(LOGITS[:1], entailment, contradiction), alone[:1])


def test_token_labels_are_the_most_probable() -> None:
    labels, scores = heads.token_labels(LOGITS)
    best = torch.from_numpy(LOGITS).softmax(-1).max(-1)
    np.testing.assert_array_equal(labels, best.indices.numpy())
    close(scores, best.values)


def test_top_tokens_come_best_first_and_ties_by_id() -> None:
    tokens, scores = heads.top_tokens(LOGITS, 3)
    best = torch.from_numpy(LOGITS).softmax(-1).topk(3)
    np.testing.assert_array_equal(tokens, best.indices.numpy())
    close(scores, best.values)
    equal = np.zeros((1, 4), np.float32)
    assert heads.top_tokens(equal, 2)[0].tolist() == [[0, 1]]


@pytest.mark.parametrize("no_answer", [False, True])
def test_spans_are_all_that_is_allowed_best_first(no_answer: bool) -> None:
    generator = np.random.default_rng(3)
    start, end = generator.normal(0, 3, (2, 12)).astype(np.float32)
    context = np.arange(12) >= 4
    context[-1] = False
    allowed = {
        (i, j): float(start[i] + end[j])
        for i in range(12)
        for j in range(i, min(i + 3, 12))
        if context[i] and context[j]
    }
    if no_answer:
        allowed[0, 0] = float(start[0] + end[0])
    spans = heads.best_spans(
        start, end, context, max_tokens=3, count=100, allow_no_answer=no_answer
    )
    expected = sorted(allowed, key=lambda span: -allowed[span])
    assert [(span.start, span.end) for span in spans] == expected
    assert [span.is_answer for span in spans] == [span != (0, 0) for span in expected]
    probabilities = torch.tensor([allowed[span] for span in expected]).softmax(0)
    close(np.array([span.probability for span in spans]), probabilities)


def test_spans_need_a_context() -> None:
    zeros = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="no span is allowed"):
        heads.best_spans(zeros, zeros, np.zeros(3, np.bool_), max_tokens=3)


@pytest.mark.parametrize(
    ("rules", "weights"),
    [
        (None, [1.0986, 1.3863]),
        (SparseRules(pooling="sum"), [1.7918, 1.3863]),
        (SparseRules(activation="log1p_relu"), [0.7413, 0.8697]),
        (SparseRules(pooling="sum", activation="log1p_relu"), [1.2679, 0.8697]),
    ],
)
def test_sparse_weights_are_those_of_splade_pooling(
    rules: SparseRules | None, weights: list[float]
) -> None:
    """Of sentence-transformers 6.2.0; a neighbour in the batch changes nothing."""
    logits = np.array([[1, -2], [2, 3], [9, 9]], np.float32)
    before = logits.copy()
    found = heads.sparse_weights(logits, np.array([0, 2, 3]), rules)
    np.testing.assert_allclose(found[0], weights, atol=5e-5)
    np.testing.assert_array_equal(
        heads.sparse_weights(logits[:2], np.array([0, 2]), rules)[0], found[0]
    )
    np.testing.assert_array_equal(logits, before)


def test_the_most_active_are_the_largest_by_absolute_value() -> None:
    weights = np.array([0.5, -3, 1, 0, -1], np.float32)
    assert heads.most_active(weights, 2).tolist() == [0, -3, 1, 0, 0]
    assert heads.most_active(weights, 9) is weights
    assert heads.most_active(weights, None) is weights


@given(
    values=st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.0, math.inf, math.nan]), max_size=30),
    count=st.integers(0, 35),
)
def test_the_largest_are_those_of_a_stable_sort(values: list[float], count: int) -> None:
    """Equal ones in their order; where there are values that are no numbers, those come last."""
    array = np.array(values, np.float32)
    expected = np.argsort(-array, kind="stable")[:count]
    assert heads.largest(array, count).tolist() == expected.tolist()
