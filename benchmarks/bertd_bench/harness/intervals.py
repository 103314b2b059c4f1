"""How sure a median is: bootstrap over rounds.

Samples of one turn share a moment of the machine, so they are correlated: ten samples of one
turn say little more than one. Whole rounds are therefore drawn, with replacement, and the
statistic is computed of all samples of the rounds drawn (a cluster bootstrap). A ratio is paired:
both contestants get the same rounds, since a slow minute fell on both; where a turn takes minutes
itself, each is drawn for itself.

With few rounds percentiles of a bootstrap are too narrow. The expanded percentile interval
corrects that: for `n` rounds it takes the percentiles ``Phi(±t(n - 1) * sqrt(n / (n - 1)))``
instead of 2.5 and 97.5 (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

CONFIDENCE = 0.95
RESAMPLES = 2000
_SEED = 20_240

Rounds = Sequence[Sequence[float]]  # samples of one contestant, round by round


class Interval(BaseModel, frozen=True):
    """Both ends of a confidence interval, in the unit of its statistic."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Ratio(BaseModel, frozen=True):
    """How many times as fast, or as much, bertd does as a peer, by medians."""

    value: float
    interval: Interval | None

    @property
    def ahead(self) -> bool:
        """Whether it surely is: the whole interval, or the value without one, exceeds 1."""
        return (self.interval.low if self.interval else self.value) > 1

    @property
    def behind(self) -> bool:
        """Whether it surely is behind."""
        return (self.interval.high if self.interval else self.value) < 1


def median_of(rounds: Rounds) -> float:
    """The median of all samples of all rounds.

    Raises:
        ValueError: there are none.
    """
    if not any(len(each) for each in rounds):
        raise ValueError("there are no samples to take a median of")
    return float(np.median(np.concatenate([np.asarray(each, np.float64) for each in rounds])))


def median_interval(rounds: Rounds) -> Interval | None:
    """95 % interval of the median; None with less than two rounds, which say nothing of it."""
    if len(rounds) < 2:
        return None
    return _interval(_medians(rounds, _draws(len(rounds))), len(rounds))


def ratio_interval(reference: Rounds, rounds: Rounds) -> Interval | None:
    """95 % interval of ``median(reference) / median(rounds)``; None with less than two rounds.

    Args:
        reference: samples of the one that is divided.
        rounds: samples of the other, in the same rounds.

    Raises:
        ValueError: they did not run in the same number of rounds.
    """
    if len(reference) != len(rounds):
        raise ValueError(
            f"{len(reference)} rounds cannot be paired with {len(rounds)}: "
            "compare contestants of one run"
        )
    if len(rounds) < 2:
        return None
    draws = _draws(len(rounds))
    return _interval(_medians(reference, draws) / _medians(rounds, draws), len(rounds))


def unpaired_interval(reference: Rounds, rounds: Rounds) -> Interval | None:
    """The same where turns of one round share no moment of the machine: each is drawn for itself.

    Args:
        reference: samples of the one that is divided.
        rounds: samples of the other, in as many rounds or not.
    """
    if min(len(reference), len(rounds)) < 2:
        return None
    ours, theirs = _draws(len(reference)), _draws(len(rounds), 1)
    ratios = _medians(reference, ours) / _medians(rounds, theirs)
    return _interval(ratios, min(len(reference), len(rounds)))


def change_interval(before: tuple[Rounds, Rounds], now: tuple[Rounds, Rounds]) -> Interval | None:
    """95 % interval of a ratio now over the same ratio before, of two runs apart.

    Each run gives rounds of the one that is judged and of the one it is divided by, which are
    paired; the runs are not, so that each is drawn for itself.

    Raises:
        ValueError: the two of one run did not run in the same number of rounds.
    """
    ratios = []
    for seed, (judged, reference) in enumerate((before, now)):
        if len(judged) != len(reference):
            raise ValueError(
                f"{len(judged)} rounds cannot be paired with {len(reference)}: "
                "a run has its reference in every round"
            )
        if len(judged) < 2:
            return None
        draws = _draws(len(judged), seed)
        ratios.append(_medians(judged, draws) / _medians(reference, draws))
    return _interval(ratios[1] / ratios[0], min(len(before[0]), len(now[0])))


def _draws(rounds: int, seed: int = 0) -> NDArray[np.int64]:
    """Which rounds each resample holds: [RESAMPLES, rounds]."""
    return np.random.default_rng(_SEED + seed).integers(0, rounds, (RESAMPLES, rounds))


def _medians(rounds: Rounds, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """The median of each resample: [RESAMPLES]."""
    if len({len(each) for each in rounds}) == 1:
        samples = np.asarray(rounds, np.float64)[draws]
        medians: NDArray[np.float64] = np.median(samples.reshape(len(draws), -1), axis=1)
        return medians
    each = [np.asarray(samples, np.float64) for samples in rounds]
    return np.array([np.median(np.concatenate([each[i] for i in draw])) for draw in draws])


def _interval(statistics: NDArray[np.float64], rounds: int) -> Interval:
    wide = NormalDist().cdf(_t(rounds - 1) * math.sqrt(rounds / (rounds - 1)))
    low, high = np.quantile(statistics, [1 - wide, wide])
    return Interval(low=float(low), high=float(high))


def _t(freedom: int) -> float:
    """Student's t at CONFIDENCE, two-sided: Cornish and Fisher's expansion (A&S 26.7.5)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms: tuple[float, ...] = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / float(freedom**power) for power, term in enumerate(terms))
