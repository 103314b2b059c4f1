"""`bertd bench report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page; PNGs of the charts that README shows are written beside it. "
    "Default: report/index.html among the results.",
)
@click.option("--pngs/--no-pngs", default=True, show_default=True)
def report(results: tuple[Path, ...], output: Path | None, pngs: bool) -> None:
    """Make one HTML page of RESULTS: no network, dark and light, readable on a phone.

    RESULTS are JSON files of other commands, by default all of benchmarks/results.
    """
    from bertd_bench.docs import RESULTS
    from bertd_bench.report import document, drawing, page, sources
    from bertd_bench.report.chart import Chart

    paths = results or sources.files(RESULTS)
    if not paths:
        raise click.UsageError(f"{RESULTS} has no results: name some")
    output = output or RESULTS / document.FOLDER / "index.html"
    try:
        found = sources.read(paths)
        charts = page.charts(found)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page.html(found, charts), encoding="utf-8")
        if pngs:
            for each in document.shown(charts):
                drawing.write_pngs(each, output.parent)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    drawn = sum(isinstance(each, Chart) for each in charts)
    click.echo(f"{output}: {drawn} charts, {len(charts) - drawn} not measured yet")
    for name, why in found.unread.items():
        click.echo(f"{name} is not shown: {why}", err=True)
