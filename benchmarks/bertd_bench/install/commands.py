"""`bertd bench costs`, `simulate`, `footprint` and `footprint-docs`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

COSTS = Path("benchmarks/results/costs.json")
SIMULATION = Path("benchmarks/results/simulation.json")
DOCUMENT = Path("docs/lab/scheduling.md")
FOOTPRINT = Path("benchmarks/results/footprint.json")
DEPLOYMENT = Path("docs/deployment.md")
README = Path("README.md")


@click.command()
@click.option("--size", "sizes", multiple=True, default=("mini", "base"), show_default=True)
@click.option("--lanes", type=click.IntRange(min=1), help="Default: as many as usable cores.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=COSTS,
    show_default=True,
)
def costs(sizes: tuple[str, ...], lanes: int | None, rounds: int, json_path: Path) -> None:
    """Measure what batches cost on this machine; `simulate` reads it."""
    from bertd_server.system import cpu

    from bertd_bench.contestants import checkpoints
    from bertd_bench.harness import machine
    from bertd_bench.scheduling import costgrid

    for size in sizes:
        if size not in checkpoints.SIZES:
            raise click.UsageError(f"--size {size} is not one of {', '.join(checkpoints.SIZES)}")
    lanes = lanes or cpu.usable_threads()
    grid = costgrid.CostGrid(
        machine=machine.describe(lanes),
        models=[costgrid.measure(size, lanes, rounds) for size in sizes],
    )
    json_path.write_text(grid.model_dump_json(indent=1) + "\n", encoding="utf-8")
    click.echo(f"{json_path} is written")


@click.command()
@click.option(
    "--costs",
    "costs_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=COSTS,
    show_default=True,
    help="What `bertd bench costs` wrote.",
)
@click.option("--requests", type=click.IntRange(min=100), default=2_000, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=SIMULATION,
    show_default=True,
    help="Where all numbers go.",
)
@click.option(
    "--document",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Also rewrite the measured section of this file, such as {DOCUMENT}.",
)
def simulate(
    costs_path: Path, requests: int, seeds: int, json_path: Path, document: Path | None
) -> None:
    """Compare schedulers in virtual time: goodput and latencies under seeded traffic."""
    from pydantic import ValidationError

    from bertd_bench.docs import sections
    from bertd_bench.scheduling import costgrid, simulatetable
    from bertd_bench.scheduling import simulate as simulation

    try:
        grid = costgrid.CostGrid.model_validate_json(costs_path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise click.ClickException(
            f"{costs_path} is no result of `bertd bench costs`: {error}"
        ) from error
    result = simulation.compare(
        grid,
        requests=requests,
        seeds=range(1, seeds + 1),
        progress=lambda line: click.echo(line, err=True),
    )
    table = simulatetable.to_markdown(result)
    click.echo(table)
    json_path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if document is not None:
        before = document.read_text(encoding="utf-8")
        try:
            after = sections.replaced(before, sections.begin("simulate"), table)
        except ValueError as error:
            raise click.ClickException(f"{document}: {error}") from error
        document.write_text(after, encoding="utf-8")


@click.command()
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="What to install. Default: the working directory.",
)
@click.option("--runs", type=click.IntRange(min=1), default=9, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Also write the results, such as {FOOTPRINT}.",
)
def footprint(source: Path, runs: int, json_path: Path | None) -> None:
    """Install `.[server]` into a fresh environment: packages, sizes, import times."""
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.install import footprint as serving

    try:
        result = serving.measure(source, runs, lambda line: click.echo(line, err=True))
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    click.echo(serving.sentence(result, str(json_path or FOOTPRINT)))
    click.echo(serving.table(result, str(json_path or FOOTPRINT)))
    if json_path is not None:
        json_path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


@click.command("footprint-docs")
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=FOOTPRINT,
    show_default=True,
    help="What `bertd bench footprint` wrote.",
)
def footprint_docs(json_path: Path) -> None:
    """Write the footprint into README.md and docs/deployment.md of the working directory."""
    from bertd_bench.docs import documents, sections
    from bertd_bench.install import footprint as serving

    opening = sections.begin("footprint-docs")
    with documents.explained():
        result = serving.read(json_path)
    for document, render in ((README, serving.sentence), (DEPLOYMENT, serving.table)):
        section = render(result, documents.link(json_path, document))
        documents.rewrite(document, partial(sections.replaced, opening=opening, section=section))
