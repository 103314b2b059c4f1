"""The command ``bertd export``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from bertd.help import GroupedCommand

from bertd_export.checkpoint.options import FiniteRange, allow_pickle, inference_labels

if TYPE_CHECKING:
    from bertd_export.bundle import ExportSummary

GROUPS = {
    "The checkpoint": ("revision", "allow_pickle", "entailment_label", "contradiction_label"),
    "The numbers of the bundle": ("precision", "calibration", "min_cosine", "keep_fp32"),
    "What it is compared with": ("tolerance", "evaluate", "max_metric_drop"),
}


@click.command(
    cls=GroupedCommand, groups=GROUPS, short_help="Make a bundle, to be served, of a checkpoint."
)
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
    type=FiniteRange(min=0, min_open=True),
    help="Largest absolute difference from PyTorch (of int8 and fp16: of the fp32 graph they are "
    "made from).",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "int8", "fp16"]),
    help="int8 is for CPUs, fp16 for accelerators; both are compared with fp32.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help='Texts for int8 and fp16, one a line, or .jsonl with "text" (default: a built-in sample '
    "in eight languages). Each third text is compared with fp32; the others calibrate.",
)
@click.option(
    "--min-cosine",
    type=FiniteRange(min=0, max=1, max_open=True),
    help="Least mean cosine to fp32 on texts not calibrated on (default: 0.99 for int8, 0.9999 "
    "for fp16). Of int8, the fewest linear layers that it takes, at most half, stay in fp32.",
)
@click.option(
    "--keep-fp32",
    multiple=True,
    metavar="PATTERN",
    help="Linear layers that int8 leaves in fp32, such as 'layer.0.*' or '*.ffn_down'; repeatable. "
    "Names are layer.N. and qkv, attention_output, ffn_up or ffn_down.",
)
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Labelled examples, JSON lines: the task's own metrics go into the manifest. For int8 and "
    "fp16 they are compared with fp32's. docs/export.md has each task's fields.",
)
@click.option(
    "--max-metric-drop",
    type=FiniteRange(min=0),
    help="By how much a metric of --evaluate may be below that of fp32; if it is further below, "
    "nothing is written (default: 0.01).",
)
@click.option("--revision", help="Branch, tag or commit of a hub id; the manifest pins the commit.")
@allow_pickle
@inference_labels
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def export(model: str, output: Path, **options: Any) -> None:
    """Export MODEL, a folder or a hub id, to a bundle that `bertd serve` reads.

    Code that comes with a checkpoint is never run.
    """
    from rich.console import Console

    from bertd_export.errors import ExportError
    from bertd_export.files.staging import Interrupted, stop_on_signals
    from bertd_export.progress import shown

    precision = options.pop("precision")
    labels = options.pop("entailment_label"), options.pop("contradiction_label")
    chosen = _precision_options(precision, options)
    if options["max_metric_drop"] is None:
        del options["max_metric_drop"]
    elif options["evaluate"] is None:
        raise click.UsageError("--max-metric-drop needs --evaluate FILE")
    try:
        with stop_on_signals(), shown(Console(stderr=True)) as say:
            from bertd_export.bundle import export_model  # slow: what is shown goes on meanwhile
            from bertd_export.checkpoint.labels import InferenceLabels
            from bertd_export.quantization.fp16 import Fp16Options
            from bertd_export.quantization.int8 import Int8Options

            summary = export_model(
                model,
                output,
                **options,
                inference=InferenceLabels(*labels),
                int8=Int8Options(**chosen) if precision == "int8" else None,
                fp16=Fp16Options(**chosen) if precision == "fp16" else None,
                progress=say,
            )
    except ExportError as error:
        raise click.ClickException(error.message) from error
    except Interrupted as error:
        click.echo(f"stopped by {error}: nothing was written", err=True)
        raise SystemExit(error.exit_code) from error
    for line in _lines(summary):
        click.echo(line)


def _precision_options(precision: str, options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a precision out of all options.

    Raises:
        click.UsageError: one was given that the precision does not have.
    """
    precisions = {
        "calibration": ("int8", "fp16"),
        "min_cosine": ("int8", "fp16"),
        "keep_fp32": ("int8",),
    }
    given = {name: value for name in precisions if (value := options.pop(name)) not in (None, ())}
    for name in given:
        if precision not in precisions[name]:
            raise click.UsageError(
                f"--{name.replace('_', '-')} needs --precision {' or '.join(precisions[name])}"
            )
    return given


def _lines(summary: ExportSummary) -> Iterator[str]:
    """What was exported, in lines for the user."""
    manifest = summary.manifest
    yield f"{manifest.name} ({manifest.architecture}) -> {summary.path}"
    yield f"  task    {summary.task}"
    yield f"  size    {summary.bytes / 1e6:.1f} MB"
    yield f"  layers  {manifest.num_layers}, attention fused in all"
    for output, parity in manifest.parity.items():
        yield (
            f"  parity  {output}: {parity.max_abs_diff:.2e} at most "
            f"(tolerance {parity.tolerance:.0e}, {parity.cases} texts)"
        )
    if manifest.text_parity:
        texts = manifest.text_parity
        yield (
            f"  texts   {texts.max_abs_diff:.2e} at most from {texts.reference} "
            f"({texts.texts} raw texts)"
        )
    if manifest.quantization:
        record = manifest.quantization
        int8_layers = record.linear_layers - len(record.keep_fp32)
        yield (
            f"  int8    {int8_layers} of {record.linear_layers} linear layers; cosine to fp32 "
            f"{record.mean_cosine:.5f} on average, {record.min_cosine:.5f} at least "
            f"({record.compared_texts} texts)"
        )
        if record.keep_fp32:
            yield f"  fp32    {', '.join(record.keep_fp32)}"
    if manifest.half:
        half = manifest.half
        yield (
            f"  fp16    cosine to fp32 {half.mean_cosine:.6f} on average, {half.min_cosine:.6f} at "
            f"least ({half.compared_texts} texts); for accelerators, no faster on a CPU"
        )
        if half.keep_fp32:
            yield f"  fp32    {', '.join(half.keep_fp32)}: values up to {half.largest:.3g}"
    if manifest.evaluation:
        measured = manifest.evaluation
        for name, figures in measured.metrics.items():
            each = ", ".join(f"{figure:.4f} in {kind}" for kind, figure in figures.items())
            yield f"  metric  {name}: {each} ({measured.examples} examples)"
    for note in summary.notes:
        yield f"  note    {note}"
    yield f"  time    {summary.seconds:.1f} s"
