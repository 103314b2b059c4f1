"""`bertd bench footprint`."""

from __future__ import annotations

from pathlib import Path

import click

from bertd_bench import options


@click.command()
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="What to install. Default: the working directory.",
)
@click.option("--runs", type=click.IntRange(min=1), default=9, show_default=True)
@options.json_path
def footprint(source: Path, runs: int, json_path: Path | None) -> None:
    """Install `.[server]` into a fresh environment; measure sizes, imports and cold starts.

    A cold start is from exec to the first right answer of the default model, by `bertd serve` and
    by a script of PyTorch.
    """
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.install import document
    from bertd_bench.install import footprint as serving

    try:
        found = serving.measure(source, runs, options.progress)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    link = str(json_path or "no file")
    text = f"{document.sentence(found, link)}\n{document.table(found, link)}"
    options.conclude(found, text, json_path)
