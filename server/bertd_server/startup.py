"""From a bundle to an engine that has run: sessions are warm, and their batches measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd import bundle

from bertd_server.cost import Measurement, Shape
from bertd_server.engine import Engine, Float32Array
from bertd_server.packing import TokenSequence

_LENGTHS = (8, 32, 128, 512)  # of the sequences that are measured
_COUNTS = (1, 4, 16)  # how many of them in a batch
_SECONDS = 0.4  # that measuring may take, beside the last batch


@dataclass(frozen=True, slots=True)
class Calibration:
    """Batches that were measured."""

    lane: Sequence[Measurement]
    wide: Sequence[Measurement] = ()


class OneSession:
    """An engine whose lanes share one session; there is no wide one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,  # noqa: ARG002 - nobody asks for what is not there
    ) -> list[dict[str, Float32Array]]:
        """Compute outputs, the sentence embedding unless told otherwise."""
        return self._engine.answer(sequences, outputs or [bundle.SENTENCE_EMBEDDING])


def calibrate(engine: OneSession, *, longest: int, most: int) -> Calibration:
    """Warm an engine and measure batches of it, small ones first, for as long as there is time.

    Args:
        engine: what to run.
        longest: tokens that a sequence may have.
        most: tokens that a batch may have.
    """
    _time(engine, 1, longest)
    begin = time.perf_counter()
    measured: list[Measurement] = []
    lengths = sorted({min(length, longest) for length in _LENGTHS})
    grid = sorted(itertools.product(_COUNTS, lengths), key=lambda entry: entry[0] * entry[1])
    for count, length in grid:
        if measured and (count * length > most or time.perf_counter() - begin > _SECONDS):
            break
        seconds = min(_time(engine, count, length) for _ in range(2))
        measured.append(Measurement(Shape.of([length] * count), seconds))
    return Calibration(measured)


def _time(engine: OneSession, count: int, length: int) -> float:
    tokens = np.zeros(length, np.int64)
    begin = time.perf_counter()
    engine.answer([TokenSequence(tokens, tokens)] * count)
    return time.perf_counter() - begin
