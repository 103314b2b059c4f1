"""`bertd bench swaps` and `restarts`."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_CONTROLS = ("explicit", "poll")
_SIGNALS = {"term": signal.SIGTERM, "kill": signal.SIGKILL}
_QUIET_CALLS = click.option(
    "--quiet-calls",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Answered before the first, for comparison.",
)


@click.command()
@click.option(
    "--swaps",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="For each of --control.",
)
@click.option(
    "--control",
    "controls",
    type=click.Choice(_CONTROLS),
    multiple=True,
    default=_CONTROLS,
    show_default=True,
    help="What makes the server load: RepositoryModelLoad, or its own look at the folder.",
)
@_QUIET_CALLS
def swaps(swaps: int, controls: Sequence[Any], quiet_calls: int) -> None:
    """Swap two tiny models under load; fail if a call does, or has another model's bits."""
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.drills import models
    from bertd_bench.drills.swaps import drill

    wrong = []
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        kinds = models.make(Path(scratch))
        for control in controls:
            try:
                found = drill(
                    kinds,
                    control,
                    swaps=swaps,
                    quiet_calls=quiet_calls,
                    folder=Path(scratch) / control,
                    progress=lambda line: click.echo(line, err=True),
                )
            except BenchError as error:
                raise click.ClickException(str(error)) from error
            click.echo(
                f"{control}: {found.swaps} swaps, {found.a_minute:.0f} a minute; memory "
                f"{found.memory[-1] / 2**20:.0f} MiB, {found.growth:+.1%} since the first ten"
            )
            _say(found)
            wrong += found.wrong
    _end(wrong)


@click.command()
@click.option(
    "--restarts",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="For each of --signal.",
)
@click.option(
    "--signal",
    "signals",
    type=click.Choice(list(_SIGNALS)),
    multiple=True,
    default=["term"],
    show_default=True,
)
@_QUIET_CALLS
@click.option(
    "--delay-seconds",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="--drain-delay-seconds of the servers.",
)
@click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=1.5,
    show_default=True,
    help="Between a server that is ready and the end of the other one.",
)
def restarts(
    restarts: int,
    signals: Sequence[str],
    quiet_calls: int,
    delay_seconds: float,
    wait_seconds: float,
) -> None:
    """Restart two servers in turns under load; fail if a call of the client does."""
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.drills import models
    from bertd_bench.drills.restarts import drill

    wrong = []
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        kind, _ = models.make(Path(scratch))
        for name in signals:
            try:
                found = drill(
                    kind,
                    _SIGNALS[name],
                    restarts=restarts,
                    quiet_calls=quiet_calls,
                    delay_seconds=delay_seconds,
                    wait_seconds=wait_seconds,
                    folder=Path(scratch) / name,
                    progress=lambda line: click.echo(line, err=True),
                )
            except BenchError as error:
                raise click.ClickException(str(error)) from error
            click.echo(
                f"{found.how.name}: {found.restarts} restarts in {found.ended - found.began:.0f} s"
            )
            _say(found)
            wrong += found.wrong
    _end(wrong)


def _say(found: Any) -> None:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.seen.answered.items()))
    click.echo(f"  answered: {counts}; {found.seen.texts:,} texts; {len(found.wrong)} wrong")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, during = found.latency(share)
        click.echo(f"  {name}: {before:.1f} ms before, {during:.1f} ms meanwhile")


def _end(wrong: Sequence[str]) -> None:
    for line in wrong[:20]:
        click.echo(f"wrong: {line}")
    if wrong:
        raise click.ClickException(f"{len(wrong)} were wrong")


COMMANDS = (swaps, restarts)
