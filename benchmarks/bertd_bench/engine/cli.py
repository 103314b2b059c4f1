"""`bertd bench engine`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertd_bench import options

if TYPE_CHECKING:
    from bertd_bench.engine.run import EnginePart


@click.command()
@options.bundle
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["memory", "bits", "times"]),
    help="Default: all.",
)
@options.rounds(7)
@click.option(
    "--batches",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Of random shapes, while memory is watched; bits take a fifth of them.",
)
@click.option("--memory-limit", default="0", show_default=True, help="As for `bertd serve`.")
@options.json_path
def engine(  # noqa: PLR0913, PLR0917 - click's parameters
    bundle: Path | None,
    parts: tuple[EnginePart, ...],
    rounds: int,
    batches: int,
    memory_limit: str,
    json_path: Path | None,
) -> None:
    """Measure BUNDLE without transport: memory over many batches, equal bits, times.

    Without BUNDLE, the embedded default model. Fails if an answer has other bits in a batch, on
    lanes or on all threads than alone.
    """
    from bertd_server.models.default_model import NoDefaultModelError, ensure_bundle
    from bertd_server.system.values import parse_bytes

    from bertd_bench.engine import document, run
    from bertd_bench.harness import results

    try:
        limit = parse_bytes(memory_limit)
    except ValueError as error:
        raise click.UsageError(f"--memory-limit: {error}") from error
    try:
        folder = bundle or ensure_bundle()
    except NoDefaultModelError as error:
        raise click.ClickException(str(error)) from error
    report = run.measure(
        folder,
        parts or run.PARTS,
        rounds=rounds,
        batches=batches,
        memory_limit=limit,
        progress=lambda line: click.echo(line, err=True),
    )
    click.echo(document.render(report))
    if json_path is not None:
        results.write(report, json_path)
    if report.identity is not None and report.identity.different:
        raise click.ClickException(f"{report.identity.different} answers have other bits")
