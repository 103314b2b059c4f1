"""`bertd bench footprint` and `footprint-docs`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

FOOTPRINT = Path("benchmarks/results/footprint.json")
DEPLOYMENT = Path("docs/deployment.md")
README = Path("README.md")


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
