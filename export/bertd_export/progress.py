"""What an export says while it works: its steps, how long it has taken, about how long it will.

::

    terminal     one line that changes: 0:00:12 [3/6] tracing BertModel; about 20 s left
    elsewhere    a line for each step, and one whenever a step has been silent for long

What is left is an estimate: the seconds that steps took elsewhere for models of other sizes, by
what those that are over took here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

SILENT_SECONDS = 15.0
"""After which a step says that it goes on."""
STARTING = "starting: PyTorch is loaded"

ExportStep = Literal[
    "load", "trace", "write", "fusion", "parity", "int8", "fp16", "evaluate", "raw texts"
]
# Seconds on two idle cores with AVX2: of the smallest model, and for each million of weights that a
# token passes in the layers. Examples that somebody brings may be any number.
_SECONDS: dict[ExportStep, tuple[float, float] | None] = {
    "load": None,  # it may be a download
    "trace": (0.5, 0.045),
    "write": (0.05, 0.005),
    "fusion": (0.05, 0.007),
    "parity": (0.4, 0.065),
    "int8": (1.7, 0.3),
    "fp16": (1.0, 0.15),
    "evaluate": None,
    "raw texts": (0.3, 0.01),
}
_TRUSTED_SECONDS = 2.0  # of steps that are over, from which on they say how fast this machine is
_MOST_FACTOR = 20.0


def seconds_left(
    over: Sequence[ExportStep], to_come: Sequence[ExportStep], spent: float, millions: float
) -> tuple[float, bool]:
    """About how long an export will go on.

    Args:
        over: steps that are.
        to_come: steps that are not, the present one too.
        spent: seconds on those that are over and have an estimate.
        millions: of weights that a token passes in the layers.

    Returns:
        seconds, and whether that is all: not so where a step to come has no estimate.
    """
    said = _elsewhere(over, millions)
    factor = (spent + _TRUSTED_SECONDS) / (said + _TRUSTED_SECONDS)
    whole = all(_SECONDS[step] is not None for step in to_come)
    return min(factor, _MOST_FACTOR) * _elsewhere(to_come, millions), whole


def _elsewhere(steps: Sequence[ExportStep], millions: float) -> float:
    known = (_SECONDS[step] for step in steps)
    return sum(one[0] + one[1] * millions for one in known if one is not None)


def about(seconds: float) -> str:
    """Seconds as an estimate is said: no more exact than it is."""
    if seconds < 5:
        return "some seconds"
    if seconds < 90:
        return f"about {round(seconds / 5) * 5} s"
    return f"about {round(seconds / 60)} min"


class ExportSteps:
    """Numbers the steps of an export: "[2/6] tracing BertModel; about 20 s left"."""

    def __init__(
        self,
        plan: Sequence[ExportStep],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """None has begun.

        Args:
            plan: the steps, in order.
            say: is told of each.
            clock: seconds.
        """
        self._plan = list(plan)
        self._say = say
        self._clock = clock
        self._begins: list[float] = []
        self._millions: float | None = None

    def weigh(self, weights: int) -> None:
        """The model is known, and so is how many weights a token passes in its layers."""
        self._millions = weights / 1e6

    def __call__(self, what: str) -> None:
        """The next one begins."""
        self._begins.append(self._clock())
        number = len(self._begins)
        self._say(f"[{number}/{len(self._plan)}] {what}{self._left(number - 1)}")

    def _left(self, place: int) -> str:
        if self._millions is None:
            return ""
        over = self._plan[:place]
        begins = zip(over, self._begins, self._begins[1:], strict=False)
        spent = sum(end - begin for step, begin, end in begins if _SECONDS[step] is not None)
        seconds, whole = seconds_left(over, self._plan[place:], spent, self._millions)
        return f"; {about(seconds)} left" if whole else f"; {about(seconds)} or more left"


@contextmanager
def shown(console: Console) -> Iterator[Callable[[str], None]]:
    """What shows lines of progress on a console, while an export runs."""
    if console.is_terminal:
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False))
        columns = SpinnerColumn(), TimeElapsedColumn(), text
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(STARTING, total=None)
            yield lambda line: progress.update(task, description=line)
        return
    with _spoken() as say:
        yield say


@contextmanager
def _spoken() -> Iterator[Callable[[str], None]]:
    """Lines on standard error, and one for each time that nothing was said for long."""
    started = time.monotonic()
    said, over = threading.Event(), threading.Event()
    last = STARTING

    def timed(line: str) -> None:
        click.echo(f"{timedelta(seconds=int(time.monotonic() - started))} {line}", err=True)

    def say(line: str) -> None:
        nonlocal last
        said.set()
        if line.startswith("["):  # a step; a note has no time
            last = line.partition(";")[0]
            timed(line)
        else:
            click.echo(line, err=True)

    def remind() -> None:
        while not over.is_set():
            if said.wait(SILENT_SECONDS):
                said.clear()
            else:
                timed(f"{last}: goes on")

    timed(STARTING)
    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield say
    finally:
        over.set()
        said.set()
        reminder.join()
