"""Which tokens of a text stay where not all fit: pure arithmetic on places of tokens.

::

    [CLS] a a a [SEP] b b b b b [SEP]
          stretch     stretch ──cut──────────> without its beginning or its end
                              ──overlapping──> parts of one size, each sharing some with the next
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tokenizers import Encoding

CutSide = Literal["right", "left"]


def stretch(encoding: Encoding, which: int) -> range:
    """Places of a text's tokens: without special tokens they lie together.

    Args:
        encoding: of a text or a pair.
        which: 0 for the first text, 1 for the second.
    """
    ids = encoding.sequence_ids
    if which not in ids:
        return range(0)
    return range(ids.index(which), len(ids) - ids[::-1].index(which))


def cut(places: range, keep: int, side: CutSide) -> range:
    """Places that go so that `keep` stay."""
    return places[keep:] if side == "right" else places[: max(0, len(places) - keep)]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens of each text that stay: the longer one is cut, and both once they are as long.

    As tokenizers' `longest_first` does.
    """
    shorter, longer = sorted((first, second))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return (longer, shorter) if first > second else (shorter, longer)


def overlapping(places: range, room: int, stride: int) -> Iterator[range]:
    """Parts of `room` places, the last one of as many as are left; neighbours share `stride`."""
    for begin in range(0, len(places) - stride, room - stride):
        yield places[begin : begin + room]
