"""Cosines of two graphs' answers, and what they are held to: pure functions."""

import numpy as np
import pytest
from bertd.bundle import Parity
from bertd_export.errors import ExportError
from bertd_export.parity.agreement import CosineScores, compared_output, task_agreement
from bertd_export.parity.comparison import within_tolerance


def test_the_worst_texts_come_first_with_their_scores() -> None:
    scores = CosineScores((0.99, 0.5, 0.75, 0.25))
    assert scores.worst(["a", "b", "c", "d"], 2) == ["0.25 d", "0.50 b", "0.75 c"]
    assert (scores.lowest, scores.mean) == (0.25, 0.6225)


def test_an_embedding_is_compared_alone_and_logits_side_by_side() -> None:
    embedding = np.ones((1, 3), np.float32)
    tokens = np.zeros((5, 3), np.float32)
    outputs = {"sentence_embedding": embedding, "token_embeddings": tokens}
    assert compared_output(outputs) is embedding
    spans = {"start_logits": np.zeros(4, np.float32), "end_logits": np.ones(4, np.float32)}
    assert compared_output(spans).tolist() == [[0, 1]] * 4


def test_logits_are_compared_by_their_spread_and_embeddings_by_direction() -> None:
    expected = [np.array([[1.0]], np.float32), np.array([[3.0]], np.float32)]
    doubled = [2 * rows for rows in expected]
    assert task_agreement("feature-extraction", expected, doubled).scores == (1, 1)
    assert task_agreement("text-ranking", expected, doubled).lowest < 0


def test_a_difference_above_its_tolerance_is_refused() -> None:
    found = {
        "logits": Parity(max_abs_diff=0.5, tolerance=1, cases=3, worst_case="two tokens, alone")
    }
    assert within_tolerance(found) is found
    above = {"logits": found["logits"].model_copy(update={"max_abs_diff": 2.0})}
    with pytest.raises(ExportError, match="worst case: two tokens, alone"):
        within_tolerance(above)
