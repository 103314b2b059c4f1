"""`bertd bench compare`, `peers` and `compare-docs`."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

import click

RESULTS = Path("benchmarks/results/compare.json")
DOCUMENT = Path("docs/lab/benchmarks.md")
README = Path("README.md")


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Whole numbers above 0, with commas between them."""
    del ctx, param
    if value is None:
        return None
    try:
        numbers = tuple(dict.fromkeys(int(each) for each in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not whole numbers with commas between") from error
    if min(numbers) < 1:
        raise click.BadParameter(f"{value!r} has a number below 1")
    return numbers


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file that could not be written, before a minute of measuring."""
    del ctx, param
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.absolute().parent} is not a folder")
    return path


_pythons = click.option(
    "--peers-python",
    "pythons",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False),
    help="Interpreter that has peers installed; may be given several times. "
    "Default: .peers/*/bin/python, which `make peers` makes.",
)


@click.command()
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
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Default: all; see `peers`.")
@click.option(
    "--lengths",
    callback=_numbers,
    default="8,32,128,256,512",
    show_default=True,
    help="Tokens of a text; those that a model does not read are left out.",
)
@click.option(
    "--batches", callback=_numbers, default="1", show_default=True, help="Texts of a call."
)
@click.option("--mixed/--no-mixed", default=True, show_default=True, help="A mixed batch too.")
@click.option(
    "--threads", callback=_numbers, default=None, help="Default: all usable cores.", type=str
)
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
@click.option("--turn-seconds", type=click.FloatRange(min=0), default=0.15, show_default=True)
@click.option(
    "--steady-seconds",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="Limit of each warm-up.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Also write the results, raw samples included; compressed above 2 MB.",
)
@_pythons
def compare(  # noqa: PLR0913, PLR0917 - click's parameters
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

    from bertd_bench.compare import interpreters, results, run, table
    from bertd_bench.compare.process import PeerError
    from bertd_bench.harness.rounds import Schedule

    # Contestants are ended on the way out, which a signal must not skip: some are stopped.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        plan = run.ComparisonPlan(
            models=models,
            tasks=cast("tuple[Task, ...]", tasks),
            peers=interpreters.chosen(peers, precisions),
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
    click.echo(table.render([(link, comparison)]))


def _command(arguments: list[str]) -> str:
    """The command without its paths, which mean nothing elsewhere."""
    left = [*arguments[1:]]
    for option in ("--peers-python", "--json"):
        while option in left:
            at = left.index(option)
            del left[at : at + 2]
    return shlex.join(["bertd", *left])


@click.command()
@_pythons
def peers(pythons: tuple[str, ...]) -> None:
    """List the peers of `compare`, and which of them are installed."""
    import tempfile

    from bertd_bench.compare import interpreters
    from bertd_bench.compare.process import PeerError
    from bertd_bench.contestants.catalogue import PEERS

    try:
        with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
            homes = interpreters.find(list(PEERS.values()), pythons, Path(scratch))
    except PeerError as error:
        raise click.ClickException(str(error)) from error
    for name, peer in PEERS.items():
        home = homes.of_peer.get(name)
        said = homes.skipped[name] if home is None else home.interpreter
        click.echo(f"{name:32}  {peer.precision}  {said}")


@click.command("compare-docs")
@click.option(
    "--json",
    "json_paths",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Results of `compare`, the standard run first; may be given several times. "
    f"Default: {RESULTS}, then others that are called so with a word after it.",
)
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DOCUMENT,
    show_default=True,
)
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=README,
    show_default=True,
)
def compare_docs(json_paths: tuple[Path, ...], document: Path, readme: Path) -> None:
    """Write the results of `compare` into docs/lab/benchmarks.md and README.md."""
    from bertd_bench.compare import results, table
    from bertd_bench.docs import documents, sections

    with documents.explained():
        found = [(path, results.read(path)) for path in json_paths or results.beside(RESULTS)]
    opening = sections.begin("compare-docs")
    for target, render in ((document, table.render), (readme, table.summary)):
        section = render([(documents.link(path, target), each) for path, each in found])
        documents.rewrite(target, partial(sections.replaced, opening=opening, section=section))


COMMANDS = (compare, peers, compare_docs)
