"""What an export says while it works: its steps, how many are left, and how long it has taken.

::

    terminal     one line that changes: 0:00:12 [3/6] tracing BertModel
    elsewhere    a line for each step, and one whenever a step has been silent for long
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

SILENT_SECONDS = 15.0
"""After which a step says that it goes on."""


class ExportSteps:
    """Numbers the steps of an export: "[2/6] tracing BertModel"."""

    def __init__(self, count: int, say: Callable[[str], None]) -> None:
        """None has begun of `count`; `say` is told of each."""
        self._count = count
        self._begun = 0
        self._say = say

    def __call__(self, what: str) -> None:
        """The next one begins."""
        self._begun += 1
        self._say(f"[{self._begun}/{self._count}] {what}")


@contextmanager
def shown(console: Console) -> Iterator[Callable[[str], None]]:
    """What shows lines of progress on a console, while an export runs."""
    if console.is_terminal:
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False))
        columns = SpinnerColumn(), TimeElapsedColumn(), text
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=None)
            yield lambda line: progress.update(task, description=line)
        return
    click.echo("starting", err=True)
    with _spoken() as say:
        yield say


@contextmanager
def _spoken() -> Iterator[Callable[[str], None]]:
    """Lines on standard error, and one for each time that nothing was said for long."""
    started = time.monotonic()
    said, over = threading.Event(), threading.Event()
    last = "starting"

    def say(line: str) -> None:
        nonlocal last
        said.set()
        if line.startswith("["):  # a step; a note has no time
            last = line
            line = f"{line} ({time.monotonic() - started:.0f} s)"
        click.echo(line, err=True)

    def remind() -> None:
        while not over.is_set():
            if said.wait(SILENT_SECONDS):
                said.clear()
            else:
                click.echo(f"{last}: goes on ({time.monotonic() - started:.0f} s)", err=True)

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield say
    finally:
        over.set()
        said.set()
        reminder.join()
