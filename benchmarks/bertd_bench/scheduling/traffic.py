"""Seeded traffic for the simulation: who arrives when, how long, how urgent.

::

    seed ─> gaps (steady, or in bursts) ─┐
         ─> kinds (queries, passages)   ─┴─> arrivals with lengths, priorities and deadlines
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bertd_server.scheduling.batching import Costs
from bertd_server.scheduling.cost import Shape
from numpy.typing import NDArray

_PATIENCE = 10.0  # the objective, in times of a lone request
_CLUMP = 64  # arrivals of a burst, on average
_ON_SHARE = 0.3  # of the time; the bursts' rate is the mean rate over this


@dataclass(frozen=True, slots=True)
class TextClass:
    """One kind of text.

    Attributes:
        share: of all texts.
        shortest: tokens.
        longest: tokens; lengths are spread evenly over the logarithm between the two.
        priority: its class.
        patience: its objective, in times of what it, or a text of the mean length, takes alone.
    """

    share: float
    shortest: int
    longest: int
    priority: int = 0
    patience: float = _PATIENCE


@dataclass(frozen=True, slots=True)
class Traffic:
    """Kinds of texts, and whether they come in bursts."""

    name: str
    kinds: tuple[TextClass, ...]
    bursts: bool = False


_TEXTS = (TextClass(1.0, 8, 256),)
_QUERIES_AND_PASSAGES = (TextClass(0.85, 8, 24), TextClass(0.15, 160, 256))
_URGENT_AND_BULK = (TextClass(0.85, 8, 24), TextClass(0.15, 160, 256, priority=1, patience=50.0))

TRAFFICS = (
    Traffic("steady", _TEXTS),
    Traffic("bursts", _TEXTS, bursts=True),
    Traffic("queries and passages", _QUERIES_AND_PASSAGES),
    Traffic("urgent queries, bulk passages", _URGENT_AND_BULK, bursts=True),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A text before it arrives. Times in seconds.

    Attributes:
        at: when it arrives.
        tokens: its length.
        priority: its class.
        deadline: when its answer is of no use any more.
    """

    at: float
    tokens: int
    priority: int
    deadline: float

    @property
    def shape(self) -> Shape:
        """What it costs alone."""
        return Shape(1, self.tokens, self.tokens**2)


def lone(costs: Costs, tokens: int) -> float:
    """Seconds of a text alone on an idle machine."""
    shape = Shape(1, tokens, tokens**2)
    seconds = costs.lane.seconds(shape)
    return seconds if costs.wide is None else min(seconds, costs.wide.seconds(shape))


def arrivals(
    traffic: Traffic, costs: Costs, *, rate: float, count: int, seed: int
) -> list[Arrival]:
    """Draw arrivals, in order of time.

    At another rate the same texts come in the same order, only nearer to each other.

    Args:
        traffic: what they are like.
        costs: tell what a text takes alone, and so its objective.
        rate: texts a second, in the long run.
        count: how many.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    shares = [kind.share for kind in traffic.kinds]
    kinds = [traffic.kinds[i] for i in rng.choice(len(shares), size=count, p=shares)]
    tokens = [
        round(float(np.exp(rng.uniform(np.log(kind.shortest), np.log(kind.longest)))))
        for kind in kinds
    ]
    times = np.cumsum(_gaps(count, rng, bursts=traffic.bursts)) / rate
    mean = lone(costs, round(sum(tokens) / count))
    return [
        Arrival(at, length, kind.priority, at + kind.patience * max(mean, lone(costs, length)))
        for at, length, kind in zip(times.tolist(), tokens, kinds, strict=True)
    ]


def _gaps(count: int, rng: np.random.Generator, *, bursts: bool) -> NDArray[np.float64]:
    """A Poisson process of rate 1, or bursts of one with silence between them: [arrivals]."""
    gaps = rng.exponential(size=count)
    if bursts:
        gaps *= _ON_SHARE
        begins = np.flatnonzero(rng.random(count) < 1 / _CLUMP)
        gaps[begins] += rng.exponential(_CLUMP * (1 - _ON_SHARE), len(begins))
    return gaps
