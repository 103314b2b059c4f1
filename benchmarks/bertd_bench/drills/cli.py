"""`bertd bench drill`."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bertd_bench.drills.report import DrillReport

_DRILLS = ("swaps", "polled-swaps", "restarts", "kills")


@click.command()
@click.argument("names", metavar="[DRILL]...", nargs=-1, type=click.Choice(_DRILLS))
@click.option(
    "--times", type=click.IntRange(min=1), default=100, show_default=True, help="Of each."
)
@click.option(
    "--quiet-calls",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Answered before the first, for comparison.",
)
def drill(names: tuple[str, ...], times: int, quiet_calls: int) -> None:
    """Swap models and restart servers under load; fail if a call of the client does.

    swaps: two models by RepositoryModelLoad. polled-swaps: found in the folder by the server
    itself. restarts: two servers in turns, by SIGTERM. kills: the same by SIGKILL. Default: all.
    """
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.drills import models, restarts, swaps

    def say(line: str) -> None:
        click.echo(line, err=True)

    wrong = 0
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        both = models.make(Path(scratch))
        drills: dict[str, Callable[..., DrillReport]] = {
            "swaps": partial(swaps.drill, both, "explicit"),
            "polled-swaps": partial(swaps.drill, both, "poll"),
            "restarts": partial(restarts.drill, both[0], signal.SIGTERM),
            "kills": partial(restarts.drill, both[0], signal.SIGKILL),
        }
        for name in names or _DRILLS:
            folder = Path(scratch) / name
            try:
                found = drills[name](
                    times=times, quiet_calls=quiet_calls, folder=folder, progress=say
                )
            except BenchError as error:
                raise click.ClickException(str(error)) from error
            click.echo("\n".join(found.lines()))
            wrong += len(found.wrong)
    if wrong:
        raise click.ClickException(f"{wrong} were wrong")
