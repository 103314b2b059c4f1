"""What batches of a grid took, and whether that is to be believed. Pure, but for `timed`.

::

    run ──timed──> Sample: seconds, disturbed ──> Samples: the next shape to run, what it all says
                                                     └──> flaw: incomplete, disturbed, noisy,
                                                          contradictory; None if it may be kept

A run is disturbed if its threads were ready to compute and had no core: others had it. What it
would have taken with cores of its own is known nevertheless, nearly: the time that it had one. That
is good enough to begin with, as live batches set the pace, and never good enough to be kept.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bertd_server.scheduling.cost import Measurement, Shape
from bertd_server.system import cpu

_ENOUGH = 3  # clean samples of a shape that tell its time
_ENOUGH_OF_LONG = 2  # where one takes longer than the next
_LONG = 0.1  # seconds
_LONGEST = 4.0  # seconds that a run is thought to take at most; beyond, live batches must do
_MOST = 12  # samples of a shape, clean or not; a machine that is noisy for so long stays so
_CLEAN = 0.9  # of the time that a run could have had a core, at least
_NOISE = 1.3  # the median of clean samples over the least
_DOUBT = 1.25  # more work may take so much less time before the two contradict each other


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: its seconds with cores of its own, and whether others had taken them."""

    seconds: float
    disturbed: bool


def timed(run: Callable[[], object], *, threads: int, possible: float) -> Sample:
    """Run a batch and take its time.

    Args:
        run: the batch, on this thread.
        threads: that it computes on, this one included.
        possible: part of the time that each of them can have a core, whatever others do: below 1
            where threads or lanes are more than there are cores. They then disturb each other, as
            they always will, and that counts as clean. 0 where a thread needs no core.
    """
    before = cpu.waited_for_cores() if threads > 1 else None
    own, begin = time.thread_time(), time.perf_counter()
    run()
    seconds, own = time.perf_counter() - begin, time.thread_time() - own
    if before is None:  # a thread of a wide run spins while it waits for the others
        return judged(seconds, own / seconds, possible)
    waited = max(0.0, (cpu.waited_for_cores() or 0.0) - before)
    return judged(seconds, 1 - waited / seconds / threads, possible)


def judged(seconds: float, share: float, possible: float) -> Sample:
    """A sample of a run that had cores for a share of its time, where so much was possible."""
    if share >= _CLEAN * possible:
        return Sample(seconds, disturbed=False)
    return Sample(seconds * max(share, 0.01) / possible, disturbed=True)


def together(lanes: Sequence[Sample]) -> Sample:
    """One sample of runs that went on at once: of those that were clean, if most were."""
    clean = [one.seconds for one in lanes if not one.disturbed]
    disturbed = 2 * len(clean) <= len(lanes)
    times = [one.seconds for one in lanes] if disturbed else clean
    return Sample(statistics.median(times), disturbed)


class Samples:
    """What the shapes of a grid took on one session."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        """Have no sample yet.

        Args:
            shapes: of the grid, all different.
        """
        self.shapes = tuple(shapes)
        self._found: defaultdict[Shape, list[Sample]] = defaultdict(list)

    def __len__(self) -> int:
        """Shapes that have a sample."""
        return len(self._found)

    @property
    def runs(self) -> int:
        """Samples of all shapes."""
        return sum(map(len, self._found.values()))

    @property
    def missing(self) -> list[Shape]:
        """Shapes that have no sample and would not take too long."""
        return [s for s in self.shapes if s not in self._found and self.expected(s) <= _LONGEST]

    def add(self, shape: Shape, sample: Sample) -> None:
        """Take in a run of a shape."""
        self._found[shape].append(sample)

    def following(self, within: float = float("inf")) -> Shape | None:
        """The shape to run next, if one is to be: the least known, one of each size first.

        Args:
            within: seconds that its runs may take.
        """
        within = min(within, _LONGEST)
        open_ = [s for s in self.shapes if self._is_open(s) and self.expected(s) <= within]
        return min(open_, key=self._order, default=None)

    def expected(self, shape: Shape) -> float:
        """Seconds of the next run of a shape, at most; 0 where nothing is known.

        So many times the tokens of another batch, or its pairs where those grow faster, take at
        most so many times as long. The first run of a shape warms it up and is run again.
        """
        if shape in self._found:
            return self._found[shape][-1].seconds
        return 2 * min(
            (
                found[-1].seconds * max(shape.tokens / other.tokens, shape.pairs / other.pairs)
                for other, found in self._found.items()
            ),
            default=0.0,
        )

    def measurements(self) -> list[Measurement]:
        """The median of each shape's clean samples; of the disturbed ones where there is none."""
        found = []
        for shape, samples in self._found.items():
            clean = [one.seconds for one in samples if not one.disturbed]
            times = clean or [one.seconds for one in samples]
            found.append(Measurement(shape, statistics.median(times)))
        return found

    def flaw(self) -> str | None:
        """Why this must not be kept; None if it may be."""
        if missing := len(self.missing):
            return f"{missing} of {len(self.shapes)} shapes have not been run"
        for shape in self._found:
            if len(self._clean(shape)) < self._enough(shape):
                return f"others had the cores while a batch of {shape.tokens} tokens ran"
            if self._is_noisy(shape):
                return f"a batch of {shape.tokens} tokens never took the same time twice"
        return contradiction(self.measurements())

    def drop(self) -> None:
        """Forget the shapes that contradict each other, to run them again."""
        for pair in _contradictions(self.measurements()):
            for one in pair:
                self._found.pop(one.shape, None)

    def _clean(self, shape: Shape) -> list[float]:
        return [one.seconds for one in self._found.get(shape, ()) if not one.disturbed]

    def _is_noisy(self, shape: Shape) -> bool:
        clean = self._clean(shape)
        return statistics.median(clean) > _NOISE * min(clean)

    def _enough(self, shape: Shape) -> int:
        return _ENOUGH_OF_LONG if self._found[shape][-1].seconds > _LONG else _ENOUGH

    def _is_open(self, shape: Shape) -> bool:
        if shape not in self._found:
            return True
        done = len(self._clean(shape)) >= self._enough(shape) and not self._is_noisy(shape)
        return not done and len(self._found[shape]) < _MOST

    def _order(self, shape: Shape) -> tuple[int, bool, int]:
        first = next(one for one in self.shapes if one.tokens == shape.tokens)
        return len(self._found.get(shape, ())), shape is not first, shape.tokens


def contradiction(measurements: Sequence[Measurement]) -> str | None:
    """What of it cannot be true at once: more work in less time; None if all can."""
    for less, more in _contradictions(measurements):
        return (
            f"{less.shape.tokens} tokens took {less.seconds:.2g} s and {more.shape.tokens}, in as "
            f"many texts or more, {more.seconds:.2g} s"
        )
    return None


def _contradictions(
    measurements: Sequence[Measurement],
) -> Iterable[tuple[Measurement, Measurement]]:
    """Pairs of which the second is more work in every way, and took less time."""
    for one, other in itertools.permutations(measurements, 2):
        less, more = one.shape, other.shape
        is_less = (
            less.tokens <= more.tokens
            and less.pairs <= more.pairs
            and less.sequences <= more.sequences
        )
        if is_less and one.seconds > _DOUBT * other.seconds:
            yield one, other
