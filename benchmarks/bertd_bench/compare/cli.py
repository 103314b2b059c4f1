"""`bertd bench compare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from bertd_bench import options


@click.command()
@click.option("--list", "listed", is_flag=True, help="Only list the peers that are installed.")
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("minilm",),
    show_default=True,
    help="minilm; BERT with random weights: mini, base, large; or a checkpoint's folder.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(["feature-extraction", "text-classification", "token-classification"]),
    default=("feature-extraction",),
    show_default=True,
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "bf16", "int8"]),
    help="Default: all.",
)
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Default: all; see --list.")
@options.numbers(
    "--lengths",
    "8,32,128,256,512",
    "Tokens of a text; those that a model does not read are left out.",
)
@options.numbers("--batches", "1", "Texts of a call.")
@click.option("--mixed/--no-mixed", default=True, show_default=True, help="A mixed batch too.")
@options.numbers("--threads", None, "Default: all usable cores.")
@options.rounds(9)
@click.option("--turn-seconds", type=click.FloatRange(min=0), default=0.15, show_default=True)
@click.option(
    "--steady-seconds",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="Limit of each warm-up.",
)
@options.json_path
@options.pythons
def compare(  # noqa: PLR0913, PLR0917 - click's parameters
    listed: bool,
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    peers: tuple[str, ...],
    lengths: tuple[int, ...],
    batches: tuple[int, ...],
    mixed: bool,
    threads: tuple[int, ...] | None,
    rounds: int,
    turn_seconds: float,
    steady_seconds: float,
    json_path: Path | None,
    pythons: tuple[str, ...],
) -> None:
    """Time bertd against its peers, tokenisation included, after proof that all agree."""
    import signal
    from typing import cast

    from bertd.bundle import Task
    from bertd_export.errors import ExportError
    from bertd_server.system import cpu

    from bertd_bench.compare import document, interpreters, run
    from bertd_bench.compare.process import PeerError
    from bertd_bench.harness import results
    from bertd_bench.harness.rounds import Schedule

    # Contestants are ended on the way out, which a signal must not skip: some are stopped.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        chosen = interpreters.chosen(peers, precisions)
        if listed:
            for line in interpreters.said(chosen, pythons):
                click.echo(line)
            return
        plan = run.ComparisonPlan(
            models=models,
            tasks=cast("tuple[Task, ...]", tasks),
            peers=chosen,
            lengths=lengths,
            batches=batches,
            mixed=mixed,
            threads=threads or (cpu.usable_threads(),),
            schedule=Schedule(
                rounds,
                repeats=20,
                pause_seconds=0.03,
                steady_seconds=steady_seconds,
                turn_seconds=turn_seconds,
            ),
            further=pythons,
            command=_command(sys.argv),
        )
        comparison = run.compare(plan, lambda line: click.echo(line, err=True))
    except (PeerError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    link = str(json_path or "no file")
    if json_path is not None:
        click.echo(f"{results.write(comparison, json_path)} is written", err=True)
    click.echo(document.render([(link, comparison)]))


def _command(arguments: list[str]) -> str:
    """The command without its paths, which mean nothing elsewhere."""
    left = [*arguments[1:]]
    for option in ("--peers-python", "--json"):
        while option in left:
            at = left.index(option)
            del left[at : at + 2]
    return shlex.join(["bertd", *left])
