"""`bertd bench load`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bertd_bench import options


@click.command()
@click.option("--list", "listed", is_flag=True, help="Only list the servers that are installed.")
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    help="minilm; BERT with random weights: mini, base, large; or a checkpoint's folder.",
)
@click.option("--server", "names", multiple=True, metavar="NAME", help="Default: all; see --list.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "int8"]),
    help="Default: both.",
)
@options.threads
@click.option(
    "--objective-ms",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="99 % of all requests must be answered within it.",
)
@options.seconds(4.0, 0.1, "Length of a step; up to three times that where few requests come.")
@options.rounds(3)
@click.option("--steps", type=click.IntRange(min=1), default=16, show_default=True, help="At most.")
@click.option("--sweep", is_flag=True, help="Try each server's settings first, and use its best.")
@click.option("--outside", is_flag=True, help="Let h2load repeat one rate, to check our generator.")
@options.accept_noise
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of `bertd serve`.",
)
@click.option(
    "--peers",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".peers"),
    show_default=True,
    help="Folder of the other servers' environments, which `make peers` makes.",
)
@options.json_path
def load(  # noqa: PLR0913, PLR0917 - click's parameters
    listed: bool,
    model: str,
    names: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: int | None,
    objective_ms: float,
    seconds: float,
    rounds: int,
    steps: int,
    sweep: bool,
    outside: bool,
    accept_noise: bool,
    settings: tuple[str, ...],
    peers: Path,
    json_path: Path | None,
) -> None:
    """Find the highest rate that bertd, and the servers people run, answer in time.

    Each is asked over its own protocol. Requests come at random moments, however slow answers are,
    and latency counts from the moment at which each was due. The rate rises until goodput falls.
    """
    import signal

    from bertd_export.errors import ExportError

    from bertd_bench.compare.process import PeerError
    from bertd_bench.load import document, run, servers

    try:
        chosen = servers.chosen(names, precisions)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if listed:
        for each in chosen:
            found = each.versions(peers.absolute()) or each.missing
            click.echo(f"{each.name:16}  {each.what}  ({found})")
        return
    # Servers are ended on the way out, which a signal must not skip: some are stopped.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        measured = run.measure(
            run.RampOptions(
                model=model,
                servers=chosen,
                peers=peers.absolute(),
                threads=threads,
                objective=objective_ms / 1e3,
                seconds=seconds,
                rounds=rounds,
                steps=steps,
                sweep=sweep,
                outside=outside,
                tries=options.tries_when_quiet(accept_noise),
                settings=_parsed(settings),
                command=options.command_line(),
            ),
            options.progress,
        )
    except (ExportError, PeerError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    said = document.goodput(measured)
    options.conclude(measured, said, json_path, measured.noise.reasons)


def _parsed(settings: tuple[str, ...]) -> dict[str, str]:
    """Settings of `bertd serve` by their names."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set {setting} is not NAME=VALUE, such as lanes=2")
        parsed[name.replace("-", "_")] = value
    return parsed
