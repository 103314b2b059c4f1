"""The task's own metric, on the user's labelled data."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bertd_export.agreement import Floats, cosine
from bertd_export.errors import ExportError

Embed = Callable[[list[str]], list[Floats]]


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts and how similar people found them (any scale)."""

    first: list[str]
    second: list[str]
    scores: list[float]


def read_pairs(path: Path) -> Pairs:
    """Read JSON lines with ``text``, ``text_pair`` and ``score``.

    Raises:
        ExportError: the file cannot be read, a line is not such an object, or all scores are equal.
    """
    pairs = Pairs([], [], [])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            first, second = record["text"], record["text_pair"]
            score = float(record["score"])
        except (ValueError, KeyError, TypeError):
            first = second = None
        if not isinstance(first, str) or not isinstance(second, str):
            raise ExportError(
                f'{path}, line {number}: expected {{"text": …, "text_pair": …, "score": number}}'
            )
        pairs.first.append(first)
        pairs.second.append(second)
        pairs.scores.append(score)
    if len(set(pairs.scores)) < 2:
        raise ExportError(f"{path}: a rank correlation needs pairs with different scores")
    return pairs


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: npt.NDArray[np.float64] = (last - (counts + 1) / 2)[inverse]
    return means


def spearman(a: list[float], b: list[float]) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    x, y = (_ranks(np.array(values, np.float64)) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


def similarity_correlation(pairs: Pairs, embed: Embed) -> float:
    """Spearman's correlation between the cosine of the two embeddings and the pairs' scores."""
    vectors = embed([*pairs.first, *pairs.second])
    half = len(pairs.first)
    found = [cosine(a, b) for a, b in zip(vectors[:half], vectors[half:], strict=True)]
    return spearman(found, pairs.scores)
