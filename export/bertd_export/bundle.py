"""Writes a bundle whole, or not at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
from bertd.bundle import (
    FORMAT_VERSION,
    GRAPH_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Manifest,
    Parity,
    Source,
    file_record,
    write_manifest,
)

from bertd_export import checkpoint as checkpoints
from bertd_export.errors import ExportError
from bertd_export.operators import OPSET
from bertd_export.parity import check_fusion, measure
from bertd_export.trace import quiet, trace

_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ExportSummary:
    """What an export made."""

    path: Path
    manifest: Manifest
    bytes: int
    seconds: float


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def _check_output(output: Path, *, force: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise ExportError(f"{output} exists and is not a folder")
    if not any(output.iterdir()):
        return
    if not force:
        raise ExportError(f"{output} exists; pass --force to replace it")
    if not (output / MANIFEST_NAME).is_file():
        raise ExportError(f"{output} is not a bundle, so it is not replaced")


def _publish(staging: Path, output: Path) -> None:
    """Move the finished folder to its place; an older bundle goes only after that."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        staging.replace(output)
        return
    old = staging.with_name(f"{staging.name}.old")
    output.replace(old)
    try:
        staging.replace(output)
    except OSError:
        old.replace(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _manifest(
    checkpoint: checkpoints.Checkpoint, name: str, parity: dict[str, Parity], folder: Path
) -> Manifest:
    config = checkpoint.model.config
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        task="feature-extraction",
        architecture=type(checkpoint.model).__name__,
        model_type=config.model_type,
        layout="packed",
        precision="fp32",
        opset=OPSET,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        type_vocab_size=checkpoint.type_vocab_size,
        max_tokens=checkpoint.max_tokens,
        position_offset=checkpoint.position_offset,
        dimensions=checkpoint.dimensions,
        pooling=checkpoint.pooling,
        normalized=checkpoint.normalized,
        prompts=checkpoint.prompts,
        default_prompt_name=checkpoint.default_prompt_name,
        source=Source(name=checkpoint.name, revision=checkpoint.revision),
        versions=_versions(),
        parity=parity,
        files={path.name: file_record(path) for path in sorted(folder.iterdir())},
    )


def export_model(  # noqa: PLR0913 - all but two are options by keyword
    model: str,
    output: Path,
    *,
    tolerance: float = 1e-4,
    force: bool = False,
    name: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportSummary:
    """Export a checkpoint to a bundle.

    Args:
        model: a folder, or a hub id.
        output: the bundle's folder, made here.
        tolerance: the largest absolute difference from PyTorch eager.
        force: replace an existing bundle.
        name: name under which the model is served; by default the checkpoint's.
        progress: told what happens next.

    Raises:
        ExportError: the model is refused; nothing was written.
    """
    started = time.perf_counter()
    output = Path(os.path.abspath(output))  # noqa: PTH100 - a link at the end must stay a link
    _check_output(output, force=force)
    progress(f"loading {model}")
    with quiet():
        checkpoint = checkpoints.load(model)
    progress(f"tracing {type(checkpoint.model).__name__}")
    graph = trace(checkpoint)
    ancestor = next(path for path in output.parents if path.is_dir())
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=ancestor))
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error}") from error
    try:
        staging.chmod(0o755)
        progress("writing the graph, its weights and the tokenizer")
        onnx.save_model(
            graph,
            str(staging / GRAPH_NAME),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=WEIGHTS_NAME,
            size_threshold=1024,
        )
        checkpoint.tokenizer.save(str(staging / TOKENIZER_NAME))
        progress("checking the fused attention")
        check_fusion(staging / GRAPH_NAME, int(checkpoint.model.config.num_hidden_layers))
        progress("comparing with PyTorch")
        parity = measure(staging / GRAPH_NAME, checkpoint, tolerance)
        default = checkpoint.name.rpartition("/")[2]
        manifest = _manifest(checkpoint, name or default, parity, staging)
        write_manifest(staging, manifest)
        for path in staging.iterdir():
            path.chmod(0o644)  # onnx makes the weights readable by their owner alone
        size = sum(path.stat().st_size for path in staging.iterdir())
        _publish(staging, output)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportSummary(output, manifest, size, time.perf_counter() - started)
