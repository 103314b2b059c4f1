"""`bertd bench report`."""

from __future__ import annotations

import os
from pathlib import Path

import click

RESULTS = Path("benchmarks/results")
OUTPUT = RESULTS / "report" / "index.html"
README_KEYS = ("load",)  # beginnings of charts' keys


@click.command()
@click.argument("results", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=OUTPUT,
    show_default=True,
    help="The page; PNGs of the charts that README shows are written beside it.",
)
@click.option("--pngs/--no-pngs", default=True, show_default=True)
@click.option(
    "--readme",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also point the pictures of this document to the PNGs.",
)
def report(results: tuple[Path, ...], output: Path, pngs: bool, readme: Path | None) -> None:
    """Make one HTML page of RESULTS: no network, dark and light, readable on a phone.

    RESULTS are JSON files of other commands, by default all of benchmarks/results.
    """
    from bertd_bench.docs import sections
    from bertd_bench.report import document, sources, style
    from bertd_bench.report.chart import Chart

    paths = results or tuple(
        path for pattern in ("*.json", "*.json.gz") for path in RESULTS.glob(pattern)
    )
    if not paths:
        raise click.UsageError(f"{RESULTS} has no results: name some")
    try:
        found = sources.read(paths)
        shown = document.charts(found)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(document.html(found, shown), encoding="utf-8")
        drawn = [each for each in shown if isinstance(each, Chart)]
        if pngs:
            for each in document.chosen(shown, README_KEYS):
                style.write_pngs(each, output.parent)
        if readme is not None:
            folder = Path(os.path.relpath(output.parent, readme.parent)).as_posix()
            before = readme.read_text(encoding="utf-8")
            after = sections.replaced(
                before, document.PICTURES, document.pictures(shown, folder, README_KEYS)
            )
            readme.write_text(after, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {len(drawn)} charts, {len(shown) - len(drawn)} not measured yet")
    for name, why in found.unread.items():
        click.echo(f"{name} is not shown: {why}", err=True)


COMMANDS = (report,)
