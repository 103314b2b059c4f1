"""The command ``bertd export``."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the bundle.",
)
@click.option("--task", help="What the bundle is for (default: found from the checkpoint).")
@click.option("--name", help="Name under which the model is served (default: the checkpoint's).")
@click.option(
    "--tolerance",
    default=1e-4,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Largest absolute difference from PyTorch.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id; the manifest pins the commit.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pytorch_model.bin where there are no safetensors. It is unpickled by a loader that "
    "makes tensors only and runs no code.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def export(model: str, output: Path, **options: Any) -> None:
    """Export MODEL, a folder or a hub id, to a bundle that `bertd serve` reads.

    Code that comes with a checkpoint is never run.
    """
    from rich.console import Console

    from bertd_export.errors import ExportError
    from bertd_export.staging import Interrupted, stop_on_signals

    console = Console(stderr=True)
    status = console.status("starting")

    def say(line: str) -> None:
        click.echo(line, err=True)

    try:
        with stop_on_signals(), status if console.is_terminal else nullcontext():
            from bertd_export.bundle import export_model  # slow: the status shows meanwhile

            summary = export_model(
                model,
                output,
                **options,
                progress=status.update if console.is_terminal else say,
            )
    except ExportError as error:
        raise click.ClickException(error.message) from error
    except Interrupted as error:
        click.echo(f"stopped by {error}: nothing was written", err=True)
        raise SystemExit(error.exit_code) from error
    manifest = summary.manifest
    click.echo(f"{manifest.name} ({manifest.architecture}) -> {summary.path}")
    click.echo(f"  task    {manifest.task}")
    click.echo(f"  size    {summary.bytes / 1e6:.1f} MB")
    click.echo(f"  layers  {manifest.num_layers}, attention fused in all")
    for output_name, parity in manifest.parity.items():
        click.echo(
            f"  parity  {output_name}: {parity.max_abs_diff:.2e} at most "
            f"(tolerance {parity.tolerance:.0e}, {parity.cases} texts)"
        )
    click.echo(f"  time    {summary.seconds:.1f} s")
