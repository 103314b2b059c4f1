"""Ways to hand a batch of unlike texts to a peer: each gets the one that suits it best.

::

    padded       all at once, as given: every text costs as much as the longest
    by length    sorted, and a call for each doubling of length
    one by one   a call for each text: nothing is padded, nothing is batched
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bertd_bench.contestants.peer import AnswerTexts, TextArrays

BatchHandling = Callable[[AnswerTexts, Sequence[str], Sequence[int]], TextArrays]


def by_length(answer: AnswerTexts, texts: Sequence[str], lengths: Sequence[int]) -> list[Any]:
    """A call for each doubling of length; answers in the order of the texts."""
    found: list[Any] = [None] * len(texts)
    for group in groups(lengths):
        for place, row in zip(group, answer([texts[i] for i in group]), strict=True):
            found[place] = row
    return found


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts, sorted by length, cut where a text is twice as long as its group's first."""
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and lengths[place] < 2 * lengths[found[-1][0]]:
            found[-1].append(place)
        else:
            found.append([place])
    return found


AS_GIVEN = "padded"
HANDLERS: dict[str, BatchHandling] = {
    AS_GIVEN: lambda answer, texts, _: answer(texts),
    "by length": by_length,
    "one by one": lambda answer, texts, _: [answer([text])[0] for text in texts],
}


def worth_trying(lengths: Sequence[int]) -> list[str]:
    """Names of the ways that differ for a batch: with texts of one length, no sorting helps."""
    if len(lengths) == 1:
        return [AS_GIVEN]
    if len(set(lengths)) == 1:
        return [AS_GIVEN, "one by one"]
    return list(HANDLERS)
