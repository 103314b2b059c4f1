"""Whether the answers of an accuracy run are right: bit for bit, and beside PyTorch eager.

::

    accuracy log ──bytes──> equal to those of the reference: the engine alone, one text at a time
                   float32─> within 1e-4 of eager's vectors, once both have length 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from bertd_bench.load.asker import distance

TOLERANCE = 1e-4


class Accuracy(BaseModel, frozen=True):
    """What an accuracy run showed.

    Attributes:
        answers: in the log.
        expected: that should be there.
        equal: bit for bit the reference's.
        difference: largest of any element from eager's, both of length 1.
    """

    answers: int
    expected: int
    equal: int
    difference: float

    @property
    def passed(self) -> bool:
        """Whether all are there and right."""
        whole = self.answers == self.expected == self.equal
        return whole and self.difference <= TOLERANCE


def check(
    answers: Mapping[int, bytes],
    reference: Sequence[bytes],
    expected: int,
    eager: NDArray[np.float32],
) -> Accuracy:
    """Compare the answers of a log.

    Args:
        answers: by the number of their sample.
        reference: of every sample.
        expected: how many answers there should be.
        eager: vectors of the first samples, float32 `[samples, dimensions]`.
    """
    equal = sum(answer == reference[sample] for sample, answer in answers.items())
    apart = [
        distance(np.frombuffer(answer, "<f4")[None], eager[sample][None])
        for sample, answer in answers.items()
        if sample < len(eager)
    ]
    difference = max(apart, default=0.0)
    return Accuracy(answers=len(answers), expected=expected, equal=equal, difference=difference)
