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
    help="Largest absolute difference from PyTorch (of int8: of the fp32 graph it is made from).",
)
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "int8"]))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help='Texts for int8, one a line, or .jsonl with "text" (default: a built-in sample in '
    "eight languages). Each third text judges instead of calibrating.",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(min=0, max=1, max_open=True),
    help="Least mean cosine between int8 and fp32 on texts not calibrated on (default: 0.99). The "
    "fewest linear layers that it takes, at most half, stay in fp32.",
)
@click.option(
    "--keep-fp32",
    multiple=True,
    metavar="PATTERN",
    help="Linear layers that stay in fp32, such as 'layer.0.*' or '*.ffn_down'; repeatable. Names "
    "are layer.N. and qkv, attention_output, ffn_up or ffn_down.",
)
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help='JSON lines with "text", "text_pair" and "score": Spearman of int8 and of fp32.',
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

    precision = options.pop("precision")
    names = ("calibration", "min_cosine", "keep_fp32", "evaluate")
    wishes = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
    if wishes and precision != "int8":
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in wishes)
        raise click.UsageError(f"{flags} needs --precision int8")
    console = Console(stderr=True)
    status = console.status("starting")

    def say(line: str) -> None:
        click.echo(line, err=True)

    try:
        with stop_on_signals(), status if console.is_terminal else nullcontext():
            from bertd_export.bundle import export_model  # slow: the status shows meanwhile
            from bertd_export.int8 import Int8Options

            summary = export_model(
                model,
                output,
                **options,
                int8=Int8Options(**wishes) if precision == "int8" else None,
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
    if manifest.quantization:
        record = manifest.quantization
        int8_layers = record.linear_layers - len(record.keep_fp32)
        click.echo(
            f"  int8    {int8_layers} of {record.linear_layers} linear layers; cosine to fp32 "
            f"{record.mean_cosine:.5f} on average, {record.min_cosine:.5f} at least "
            f"({record.compared_texts} texts)"
        )
        if record.keep_fp32:
            click.echo(f"  fp32    {', '.join(record.keep_fp32)}")
        if record.evaluation:
            figures = record.evaluation
            click.echo(
                f"  metric  {figures.metric}: {figures.fp32:.4f} in fp32, "
                f"{figures.int8:.4f} in int8 ({figures.examples} examples)"
            )
    click.echo(f"  time    {summary.seconds:.1f} s")
