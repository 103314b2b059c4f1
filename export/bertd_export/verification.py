"""Repeats a bundle's parity run on this machine, against the checkpoint it is said to come from."""

from pathlib import Path

import tokenizers
from bertd.bundle import (
    GRAPH_NAME,
    TOKENIZER_NAME,
    Manifest,
    Parity,
    read_manifest,
    verify_files,
)

from bertd_export import checkpoint as checkpoints
from bertd_export.bundle import describe
from bertd_export.cases import CHARACTERS
from bertd_export.errors import ExportError
from bertd_export.parity import check_fusion, compare
from bertd_export.runtime import CPU
from bertd_export.trace import quiet

_FREE = frozenset(
    {
        "format_version",
        "name",
        "opset",
        "source",
        "versions",
        "parity",
        "files",
        "precision",
        "quantization",
        "half",
        "evaluation",
    }
)


def verify(  # noqa: PLR0913 - all but two are options by keyword
    folder: Path,
    model: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    tolerance: float | None = None,
    provider: str = CPU,
) -> tuple[Manifest, dict[str, Parity]]:
    """Compare a bundle with a checkpoint.

    Args:
        folder: the bundle.
        model: the checkpoint, a folder or a hub id.
        revision: of a hub id; by default the commit in the manifest, if the id is the same.
        allow_pickle: read pickled weights where there are no safetensors; no code is run.
        tolerance: the largest absolute difference; by default what each output was held to.
        provider: what runs the graph, in ONNX Runtime's name.

    Returns:
        The manifest, and the parity measured now for each output, whether or not it is within
        the tolerance.

    Raises:
        BundleError: the folder is no bundle, or a file in it was altered.
        ExportError: the checkpoint cannot be read or does not fit the bundle, or answers are not
            finite or depend on the batch.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    if revision is None and model == manifest.source.name and not Path(model).is_dir():
        revision = manifest.source.revision
    with quiet():
        checkpoint = checkpoints.load(
            model, manifest.task, revision=revision, allow_pickle=allow_pickle
        )
    _check_fit(manifest, checkpoint)
    _check_tokenizer(folder, checkpoint)
    graph = folder / GRAPH_NAME
    check_fusion(graph, manifest.num_layers)
    held = max(parity.tolerance for parity in manifest.parity.values())
    found = compare(graph, checkpoint, tolerance or held, provider)
    if found.keys() != manifest.parity.keys():
        raise ExportError(
            f"the bundle has outputs {', '.join(manifest.parity)}; compared: {', '.join(found)}"
        )
    if tolerance is None:
        found = {
            output: parity.model_copy(update={"tolerance": manifest.parity[output].tolerance})
            for output, parity in found.items()
        }
    return manifest, found


def _check_fit(manifest: Manifest, checkpoint: checkpoints.Checkpoint) -> None:
    """Refuse a checkpoint that the exporter would describe otherwise."""
    expected = describe(checkpoint, manifest.name, manifest.parity, manifest.files)
    differing = [
        f"{name} is {theirs!r} in the bundle and {ours!r} in the checkpoint"
        for (name, theirs), (_, ours) in zip(manifest, expected, strict=True)
        if name not in _FREE and theirs != ours
    ]
    if differing:
        raise ExportError(f"the checkpoint does not fit the bundle: {'; '.join(differing)}")


def _check_tokenizer(folder: Path, checkpoint: checkpoints.Checkpoint) -> None:
    """Refuse a tokenizer with another vocabulary, or that splits odd texts otherwise."""
    path = folder / TOKENIZER_NAME
    try:
        ours = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise ExportError(f"{path} cannot be loaded: {error}") from error
    theirs = checkpoint.tokenizer
    if ours.get_vocab() != theirs.get_vocab():
        raise ExportError("the vocabularies of the bundle and of the checkpoint differ")
    for text in CHARACTERS:
        if ours.encode(text).ids != theirs.encode(text).ids:
            raise ExportError(f"the bundle and the checkpoint tokenise {text!r} differently")
