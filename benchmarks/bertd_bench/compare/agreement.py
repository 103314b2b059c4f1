"""Whether a peer computes the same: its time means nothing before that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertd_bench.compare.process import PeerError

TOLERANCE = 1e-4  # fp32: of the length of an answer
LOWEST_COSINE = 0.9  # bf16 and int8: below it an answer is another answer


class Closeness(NamedTuple):
    """How far answers are from eager's: see :class:`~bertd_bench.compare.results.Row`."""

    difference: float
    cosine: float


def agreement(
    found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]
) -> Closeness:
    """Compare answers, text by text.

    Raises:
        PeerError: there are more or fewer, or of another shape.
    """
    if [each.shape for each in found] != [each.shape for each in expected]:
        raise PeerError(
            f"answers of shape {[each.shape for each in found][:3]}, "
            f"eager's {[each.shape for each in expected][:3]}"
        )
    difference, cosine = 0.0, 1.0
    for ours, theirs in zip(found, expected, strict=True):
        a, b = ours.ravel().astype(np.float64), theirs.ravel().astype(np.float64)
        length = float(np.linalg.norm(b))
        difference = _worst(difference, float(np.linalg.norm(a - b)) / max(length, 1e-12))
        between = float(a @ b) / max(float(np.linalg.norm(a)) * length, 1e-12)
        cosine = -_worst(-cosine, -between)
    return Closeness(difference, cosine)


def of_directions(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Closeness:
    """Compare vectors once all have length 1: a checkpoint may not ask for that, and others do it.

    Args:
        found: float32 `[texts, dimensions]`.
        expected: the same.

    Raises:
        PeerError: the shapes differ.
    """
    ours, theirs = (list(v / np.linalg.norm(v, axis=1, keepdims=True)) for v in (found, expected))
    return agreement(ours, theirs)


def _worst(before: float, now: float) -> float:
    """The larger; not a number is the worst of all."""
    return now if np.isnan(now) else max(before, now)


def check(agreement: Closeness, precision: str) -> None:
    """Refuse what computes something else.

    Raises:
        PeerError: fp32 is beyond the tolerance, or another precision below the lowest cosine.
    """
    if precision == "fp32":
        if not agreement.difference <= TOLERANCE:
            raise PeerError(
                f"its answers differ from eager's by {agreement.difference:.1e} of their length, "
                f"more than {TOLERANCE:.0e} for fp32, so its time would mean nothing"
            )
    elif not agreement.cosine >= LOWEST_COSINE:
        raise PeerError(
            f"its answers have a cosine of {agreement.cosine:.3f} with eager's, less than "
            f"{LOWEST_COSINE} for {precision}, so its time would mean nothing"
        )
