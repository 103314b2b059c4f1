"""Metrics of the tasks: pure functions of labels and predictions."""

import re
import string
from collections import Counter
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
from bertd.bundle import LabelScheme, tags
from bertd.bundle.arrays import Float64Array

Labels = AbstractSet[Hashable]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TaggedSpan(NamedTuple):
    """A label on the words `first` to `last`, both included."""

    label: str
    first: int
    last: int


def ranks(values: Sequence[float]) -> Float64Array:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(
        np.array(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    means: Float64Array = (last - (counts + 1) / 2)[inverse]
    return means


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


def _f1(right: int, predicted: int, expected: int) -> float:
    """Harmonic mean of precision and recall; 1 where nothing is expected and nothing found."""
    return 2 * right / (predicted + expected) if predicted + expected else 1.0


def micro_f1(expected: Sequence[Labels], predicted: Sequence[Labels]) -> float:
    """F1 of all labels of all examples together."""
    right = sum(len(a & b) for a, b in zip(expected, predicted, strict=True))
    return _f1(right, sum(map(len, predicted)), sum(map(len, expected)))


def macro_f1(expected: Sequence[Labels], predicted: Sequence[Labels]) -> float:
    """The mean of each label's F1, over the labels that are expected or predicted anywhere."""
    labels: set[Hashable] = set().union(*expected, *predicted)
    each = [
        micro_f1([found & {label} for found in expected], [found & {label} for found in predicted])
        for label in labels
    ]
    return float(np.mean(each)) if each else 1.0


def entities(labels: Sequence[str], scheme: LabelScheme | None) -> set[TaggedSpan]:
    """The entities that the labels of words name, as conlleval and seqeval read them.

    A label without a letter, a part of speech for instance, is an entity of one word.

    Args:
        labels: of the words in order.
        scheme: of the model's labels; None for bare names.
    """
    found: list[TaggedSpan] = []
    before = tags.Tag("", "outside")
    for place, label in enumerate(labels):
        tag = tags.read(label, scheme)
        bare = tag.name == label
        if tag.role != "outside" and (bare or tags.begins(tag, before)):
            found.append(TaggedSpan(tag.name, place, place))
        elif tag.role != "outside":
            found[-1] = found[-1]._replace(last=place)
        before = tag
    return set(found)


def squad_words(answer: str) -> list[str]:
    """An answer's words as SQuAD's evaluation compares them.

    Lower case, without punctuation, the articles a, an and the, and superfluous white space.
    """
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def exact_match(answers: Sequence[str], predicted: str) -> float:
    """1 if the prediction is one of the answers in SQuAD's normalisation, else 0.

    Args:
        answers: right answers; none means that the question has no answer.
        predicted: the empty string for no answer.
    """
    words = squad_words(predicted)
    return float(any(squad_words(answer) == words for answer in answers or [""]))


def answer_f1(answers: Sequence[str], predicted: str) -> float:
    """SQuAD's F1 over words, of the answer that it fits best; arguments as :func:`exact_match`."""
    words = squad_words(predicted)
    best = 0.0
    for answer in answers or [""]:
        wanted = squad_words(answer)
        if not words or not wanted:
            best = max(best, float(words == wanted))
            continue
        common = sum((Counter(words) & Counter(wanted)).values())
        best = max(best, _f1(common, len(words), len(wanted)))
    return best
