"""`bertd bench compare`."""

from __future__ import annotations

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
@options.accept_noise
@options.json_path
@click.option(
    "--peers-python",
    "pythons",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False),
    help="Interpreter that has peers installed; may be given several times. "
    "Default: .peers/*/bin/python, which `make peers` makes.",
)
def compare(  # noqa: PLR0913, PLR0917 - click's parameters
    listed: bool,
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    peers: tuple[str, ...],
    lengths: tuple[int, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...] | None,
    rounds: int,
    turn_seconds: float,
    steady_seconds: float,
    accept_noise: bool,
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
            threads=threads or (cpu.usable_threads(),),
            schedule=Schedule(
                rounds,
                repeats=20,
                pause_seconds=0.03,
                steady_seconds=steady_seconds,
                turn_seconds=turn_seconds,
            ),
            further=pythons,
            tries=options.tries_when_quiet(accept_noise),
            command=options.command_line(),
        )
        comparison = run.compare(plan, options.progress)
    except (PeerError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    text = document.render([(str(json_path or "no file"), comparison)])
    options.conclude(comparison, text, json_path, comparison.noisy)
