"""``bertd inspect`` and ``bertd verify``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertd_export.checkpoint.options import FiniteRange, allow_pickle, inference_labels

if TYPE_CHECKING:
    from bertd_export.verification.graph_summary import GraphSummary, Value
    from bertd_export.verification.verify import Verification

_BUNDLE = click.Path(exists=True, file_okay=False, path_type=Path)
_STYLE = click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print: lines for people, or one JSON object.",
)


@click.command(short_help="What a bundle is; its files against their hashes.")
@click.argument("bundle", type=_BUNDLE)
@click.option(
    "--graph",
    "with_graph",
    is_flag=True,
    help="Count the operators too, in the file and as ONNX Runtime runs it here.",
)
@_STYLE
@click.option("--json", "as_json", is_flag=True, hidden=True)  # as it was called at first
def inspect(bundle: Path, with_graph: bool, style: str, as_json: bool) -> None:
    """Show what BUNDLE is, and check its files against their hashes.

    The exit code is 1 if a file is missing, altered, or a link that leaves the bundle, or if
    manifest, graph and tokenizer do not fit each other.
    """
    from bertd.bundle import GRAPH_NAME, BundleError

    from bertd_export.verification.inspection import inspect_bundle, rows

    try:
        found = inspect_bundle(bundle)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    summary = _summary(bundle / GRAPH_NAME) if with_graph and found.intact else None
    if as_json or style == "json":
        record = {
            "bundle": str(bundle),
            "intact": found.intact,
            "manifest": found.manifest.model_dump(mode="json"),
            "problems": {name: text for name, text in found.problems.items() if text},
            "misfit": found.misfit,
            "unlisted": found.unlisted,
        }
        if summary is not None:
            record["graph"] = dataclasses.asdict(summary)
        click.echo(json.dumps(record, indent=2))
    else:
        _print(found.manifest.name, rows(found))
        if summary is not None:
            _print("graph", _graph_rows(summary))
    if not found.intact:
        problem = next(filter(None, found.problems.values()))
        raise click.ClickException(problem)
    if found.misfit is not None:
        raise click.ClickException(found.misfit)


def _summary(graph: Path) -> GraphSummary:
    try:
        from bertd_export.errors import ExportError
        from bertd_export.verification.graph_summary import summarize
    except ImportError as error:
        raise click.ClickException(
            f"--graph needs the extra [export]: pip install 'bertd[export]' ({error})"
        ) from error
    try:
        return summarize(graph)
    except ExportError as error:
        raise click.ClickException(error.message) from error


def _graph_rows(summary: GraphSummary) -> list[tuple[str, str]]:
    lines = [(f"input {value.name}", _type(value)) for value in summary.inputs]
    lines += [(f"output {value.name}", _type(value)) for value in summary.outputs]
    lines += [(f"in the file {name}", str(n)) for name, n in summary.operators.items()]
    for function, operators in summary.functions.items():
        lines += [(f"function {function} {name}", str(n)) for name, n in operators.items()]
    lines += [(f"optimised here {name}", str(n)) for name, n in summary.optimized.items()]
    lines.append(("kernels here", summary.kernels))
    return lines


def _type(value: Value) -> str:
    return f"{value.dtype} [{', '.join(map(str, value.shape))}]"


def _print(title: str, lines: list[tuple[str, str]]) -> None:
    """A table on a terminal, one line per row elsewhere or without rich."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(title=title, title_justify="left", show_header=False)
            for name, value in lines:
                table.add_row(Text(name), Text(value))
            Console().print(table)
            return
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:{width}}  {value}")


@click.command(short_help="Repeat its comparison with PyTorch here.")
@click.argument("bundle", type=_BUNDLE)
@click.option(
    "--against",
    "model",
    required=True,
    metavar="MODEL",
    help="The checkpoint, a folder or a hub id.",
)
@click.option(
    "--tolerance",
    type=FiniteRange(min=0, min_open=True),
    help="Largest absolute difference from PyTorch.  [default: what the export was held to; for "
    "fp32 at most 1e-4]",
)
@click.option(
    "--min-cosine",
    type=FiniteRange(max=1),
    help="Least mean cosine of int8 and fp16 to PyTorch, on the built-in texts.  [default: what "
    "an export needs by default, 0.99 and 0.9999, with a tenth more distance from 1]",
)
@click.option(
    "--provider",
    default="CPUExecutionProvider",
    show_default=True,
    help="What runs the graph, in ONNX Runtime's name, such as CUDAExecutionProvider.",
)
@click.option(
    "--kernels",
    type=click.Choice(["auto", "native", "stock"]),
    default="auto",
    show_default=True,
    help="On a CPU: those of the package bertd-native, ONNX Runtime's own operators, or native "
    "ones where they are installed.",
)
@click.option(
    "--revision",
    help="Branch, tag or commit of a hub id.  [default: the commit in the manifest]",
)
@_STYLE
@allow_pickle
@inference_labels
def verify(bundle: Path, model: str, style: str, **options: Any) -> None:
    """Repeat BUNDLE's comparison with PyTorch on this machine.

    The exit code is 1 if a file was altered, the checkpoint does not fit, an output differs by
    more than the tolerance, int8 or fp16 agrees too little, or bits depend on the batch (with
    another provider than the CPU's that is only reported).
    """
    from bertd.bundle import BundleError

    from bertd_export.checkpoint.labels import InferenceLabels
    from bertd_export.errors import ExportError
    from bertd_export.verification.verify import verify as verify_bundle

    labels = options.pop("entailment_label"), options.pop("contradiction_label")
    try:
        found = verify_bundle(bundle, model, **options, inference=InferenceLabels(*labels))
    except (BundleError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    if style == "json":
        click.echo(json.dumps(_verified(bundle, found), indent=2))
    else:
        for line in _verified_lines(found):
            click.echo(line)
    if found.failures:
        raise click.ClickException(
            f"{bundle} does not agree with {model}: {'; '.join(found.failures)}. It was made from "
            f"other weights, or with more --tolerance or less --min-cosine than here, or this "
            f"machine computes otherwise"
        )


def _verified(bundle: Path, found: Verification) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "agrees": not found.failures,
        "failures": list(found.failures),
        "parity": {name: one.model_dump(mode="json") for name, one in found.parity.items()},
        "text_parity": found.texts.model_dump(mode="json") if found.texts else None,
        "mean_cosine": found.cosine,
        "min_cosine": found.least,
        "varying": found.varying,
    }


def _verified_lines(found: Verification) -> Iterator[str]:
    for output, parity in found.parity.items():
        within = parity.max_abs_diff <= parity.tolerance
        yield (
            f"{output}: {parity.max_abs_diff:.2e} at most, "
            f"{'within' if within else 'ABOVE'} the tolerance {parity.tolerance:.0e} "
            f"({parity.cases} texts; at export {found.manifest.parity[output].max_abs_diff:.2e})"
        )
        yield f"  worst case: {parity.worst_case}"
    if found.texts is not None:
        yield (
            f"raw texts: {found.texts.max_abs_diff:.2e} at most from {found.texts.reference} "
            f"({found.texts.texts} texts)"
        )
    if found.cosine is not None:
        yield f"mean cosine: {found.cosine:.6f} (at least {found.least:.6f} is asked)"
    yield f"bits: {found.varying or 'each text alone equals the same text in every batch'}"
