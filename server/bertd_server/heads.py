"""The arithmetic after the graph; it lives in :mod:`bertd.heads`, which export shares."""

from bertd.heads import (
    Float32Array,
    Int64Array,
    Span,
    best_spans,
    class_scores,
    ranking_scores,
    sigmoid,
    softmax,
    token_labels,
    top_tokens,
    zero_shot_scores,
)

__all__ = [
    "Float32Array",
    "Int64Array",
    "Span",
    "best_spans",
    "class_scores",
    "ranking_scores",
    "sigmoid",
    "softmax",
    "token_labels",
    "top_tokens",
    "zero_shot_scores",
]
