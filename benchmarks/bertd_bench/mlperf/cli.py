"""`bertd bench mlperf`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from bertd_bench import options
from bertd_bench.mlperf.settings import PRESETS, SCENARIOS, Scenario


@click.command()
@options.model
@click.option(
    "--preset",
    "name",
    type=click.Choice(list(PRESETS)),
    default="quick",
    show_default=True,
    help="full: ten minutes a run, as MLPerf asks. check: too short to be valid.",
)
@click.option(
    "--limit-ms",
    type=click.FloatRange(min=0.1),
    default=130.0,
    show_default=True,
    help="Of Server: 99 % of the queries must be answered within it.",
)
@click.option(
    "--scenario", "scenarios", multiple=True, type=click.Choice(SCENARIOS), help="Default: all."
)
@options.threads
@click.option(
    "--logs",
    "keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep LoadGen's own logs here.",
)
@options.json_path
def mlperf(  # noqa: PLR0913, PLR0917 - click's parameters
    model: str | None,
    name: str,
    limit_ms: float,
    scenarios: tuple[str, ...],
    threads: int | None,
    keep: Path | None,
    json_path: Path | None,
) -> None:
    """Put MLPerf's own load generator on bertd; not an official result.

    Fails if LoadGen calls a run invalid, or if an answer is wrong.
    """
    from bertd_export.errors import ExportError

    from bertd_bench.contestants.eager import BenchError

    try:
        from bertd_bench.mlperf import document, run
    except ImportError as error:
        raise click.ClickException(
            f"{error}: install LoadGen with `pip install 'bertd[bench]'`"
        ) from error
    chosen = run.MlperfOptions(
        model=model,
        name=name,
        preset=PRESETS[name],
        limit=limit_ms / 1e3,
        threads=threads,
        scenarios=cast("tuple[Scenario, ...]", scenarios) or SCENARIOS,
        keep=keep,
        command=options.command_line(),
    )
    try:
        report = run.measure(chosen, options.progress)
    except (BenchError, ExportError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    options.conclude(report, document.render(report), json_path)
    if report.failed:
        raise click.ClickException(f"invalid, or with wrong answers: {'; '.join(report.failed)}")
