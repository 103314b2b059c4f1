"""Repeats a bundle's comparison on this machine, with the checkpoint it is said to come from.

::

    bundle, checkpoint ──> do they fit? ──> grid of cases ──> largest difference, equal bits
                                        ──> int8, fp16: built-in texts ──> agreement with PyTorch

The manifest is not signed, so what it claims of itself can only make the comparison stricter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers
from bertd.bundle import (
    GRAPH_NAME,
    TOKENIZER_NAME,
    BundleError,
    Manifest,
    Parity,
    Precision,
    TextParity,
    read_manifest,
    verify_files,
)
from bertd.bundle.kernels import KernelChoice

from bertd_export.bundle import describe
from bertd_export.checkpoint.families import attention_calls
from bertd_export.checkpoint.labels import NAMES_SAY, InferenceLabels
from bertd_export.checkpoint.loading import Checkpoint, load
from bertd_export.errors import ExportError
from bertd_export.graph.fusion import check_fusion
from bertd_export.graph.runtime import CPU, session
from bertd_export.graph.trace import quiet
from bertd_export.parity.agreement import compared_output, task_agreement
from bertd_export.parity.cases import CHARACTERS
from bertd_export.parity.comparison import observe
from bertd_export.parity.packed_batch import compared_outputs
from bertd_export.parity.reference import eager_outputs
from bertd_export.quantization import fp16, int8
from bertd_export.quantization.calibration import read_sample, tokenized
from bertd_export.text_parity.comparison import compare_texts
from bertd_export.verification.inspection import misfit_of

_FREE = frozenset(
    {
        "format_version",
        "name",
        "opset",
        "source",
        "versions",
        "parity",
        "text_parity",
        "files",
        "precision",
        "quantization",
        "half",
        "evaluation",
    }
)


FP32_TOLERANCE = 1e-4
"""The largest difference from PyTorch that fp32 is allowed by default."""

_LEAST: Mapping[Precision, float] = {
    "int8": int8.DEFAULT_MIN_COSINE,
    "fp16": fp16.DEFAULT_MIN_COSINE,
}
_MARGIN = 0.1  # by what share the distance from 1 may exceed that of the export's gate


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        manifest: of the bundle.
        texts: of fp32, how far answers to raw texts are from the reference library's.
        parity: how far each output is from PyTorch now, within the tolerance or not.
        varying: the first answer whose bits depend on its batch; None if there is none.
        provider: what ran the graph. Only the CPU's bits are promised.
        cosine: of int8 and fp16, the mean cosine to PyTorch over the built-in texts; of logits, a
            figure on the same scale.
        least: what the cosine has to reach.
    """

    manifest: Manifest
    texts: TextParity | None
    parity: dict[str, Parity]
    varying: str | None
    provider: str
    cosine: float | None
    least: float | None

    @property
    def failures(self) -> list[str]:
        """What does not hold, each with its figure and its limit."""
        found = [
            f"{output} differs by {parity.max_abs_diff:.2e}, more than {parity.tolerance:.0e}"
            for output, parity in self.parity.items()
            if not parity.max_abs_diff <= parity.tolerance
        ]
        if self.cosine is not None and self.least is not None and not self.cosine >= self.least:
            found.append(f"the mean cosine is {self.cosine:.6f}, less than {self.least:.6f}")
        if self.varying is not None and self.provider == CPU:
            found.append(self.varying)
        return found


def verify(  # noqa: PLR0913 - all but two are options by keyword
    folder: Path,
    model: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    tolerance: float | None = None,
    min_cosine: float | None = None,
    provider: str = CPU,
    kernels: KernelChoice = "auto",
    inference: InferenceLabels = NAMES_SAY,
) -> Verification:
    """Compare a bundle with a checkpoint.

    Args:
        folder: the bundle.
        model: the checkpoint, a folder or a hub id.
        revision: of a hub id; by default the commit in the manifest, if the id is the same.
        allow_pickle: read pickled weights where there are no safetensors; no code is run.
        tolerance: the largest absolute difference; by default what each output was held to, of
            fp32 at most :data:`FP32_TOLERANCE`.
        min_cosine: the least mean cosine of int8 and fp16; by default that of an export, with a
            tenth more distance from 1 for another machine.
        provider: what runs the graph, in ONNX Runtime's name.
        kernels: `native` ones, `stock` operators, or native ones where they are.
        inference: of zero-shot-classification, what the labels were called at export.

    Raises:
        BundleError: the folder is no bundle, a file in it was altered, or its parts do not fit.
        ExportError: the checkpoint cannot be read or does not fit the bundle, or answers are not
            finite, or those to raw texts differ from the reference library's.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    if misfit := misfit_of(folder, manifest):
        raise BundleError(misfit)
    if revision is None and model == manifest.source.name and not Path(model).is_dir():
        revision = manifest.source.revision
    with quiet():
        checkpoint = load(
            model,
            manifest.task,
            revision=revision,
            allow_pickle=allow_pickle,
            inference=inference,
        )
    _check_fit(manifest, checkpoint)
    _check_tokenizer(folder, checkpoint)
    graph = folder / GRAPH_NAME
    check_fusion(graph, attention_calls(checkpoint.model.config))
    found = observe(graph, checkpoint, tolerance or FP32_TOLERANCE, provider, kernels)
    if found.parity.keys() != manifest.parity.keys():
        raise ExportError(
            f"the bundle has outputs {', '.join(manifest.parity)}; "
            f"compared: {', '.join(found.parity)}"
        )
    parity = found.parity if tolerance is not None else _held(manifest, found.parity)
    cosine = least = None
    if manifest.precision in _LEAST:
        cosine = _cosine(graph, checkpoint, provider, kernels)
        gate = _LEAST[manifest.precision]
        least = min_cosine if min_cosine is not None else gate - _MARGIN * (1 - gate)
    found_so_far = Verification(manifest, None, parity, found.varying, provider, cosine, least)
    if manifest.precision != "fp32" or provider != CPU or found_so_far.failures:
        return found_so_far
    texts = compare_texts(folder, checkpoint, tolerance or FP32_TOLERANCE)
    return replace(found_so_far, texts=texts)


def _held(manifest: Manifest, found: Mapping[str, Parity]) -> dict[str, Parity]:
    """What was found, with the tolerances of the manifest; those of fp32 as far as they may go."""
    most = FP32_TOLERANCE if manifest.precision == "fp32" else float("inf")
    return {
        output: parity.model_copy(
            update={"tolerance": min(most, manifest.parity[output].tolerance)}
        )
        for output, parity in found.items()
    }


def _cosine(graph: Path, checkpoint: Checkpoint, provider: str, kernels: KernelChoice) -> float:
    """Mean agreement with PyTorch over the built-in texts that calibration does not see."""
    texts = tokenized(checkpoint, read_sample(None).judge)
    expected = [compared_output(outputs) for outputs in eager_outputs(checkpoint, texts)]
    run = session(graph, provider=provider, kernels=kernels)
    got = compared_outputs(run, checkpoint, texts)
    return task_agreement(checkpoint.task, expected, got).mean


def _check_fit(manifest: Manifest, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that the exporter would describe otherwise."""
    expected = describe(checkpoint, manifest.name, manifest.parity, manifest.files)
    differing = [
        f"{name} is {theirs!r} in the bundle and {ours!r} in the checkpoint"
        for (name, theirs), (_, ours) in zip(manifest, expected, strict=True)
        if name not in _FREE and theirs != ours
    ]
    if differing:
        raise ExportError(f"the checkpoint does not fit the bundle: {'; '.join(differing)}")


def _check_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
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
