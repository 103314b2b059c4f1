"""An export, from a checkpoint to a bundle that is written whole, or not at all.

::

    checkpoint ──load──> model ──trace──> packed graph ──to_int8, to_fp16──> graph of the bundle
                                                                                   │ write
    bundle <──publish── manifest <──describe── parity, metrics <──compare, evaluate── files
                                               text parity <──compare_texts── fp32 bundle
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx
import tokenizers
from bertd.bundle import (
    FORMAT_VERSION,
    GRAPH_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    FileRecord,
    Manifest,
    Parity,
    Precision,
    Source,
    Task,
    TextParity,
    file_record,
    safe_name,
    write_manifest,
)
from bertd.bundle.kernels import missing

from bertd_export.checkpoint.families import attention_calls, describe_family
from bertd_export.checkpoint.labels import NAMES_SAY, InferenceLabels
from bertd_export.checkpoint.loading import Checkpoint, load
from bertd_export.errors import ExportError
from bertd_export.evaluation.evaluator import DEFAULT_MAX_DROP, Evaluator
from bertd_export.files.staging import publish, staged
from bertd_export.graph.fusion import check_fusion
from bertd_export.graph.operators import OPSET
from bertd_export.graph.saving import save_graph
from bertd_export.graph.trace import quiet, trace
from bertd_export.parity.comparison import compare, within_tolerance
from bertd_export.progress import ExportStep, ExportSteps
from bertd_export.quantization.conversion import (
    Conversion,
    PrecisionRecord,
    QualityGate,
    to_fp32,
)
from bertd_export.quantization.fp16 import Fp16Options, to_fp16
from bertd_export.quantization.int8 import Int8Options, to_int8
from bertd_export.text_parity.comparison import compare_texts

_BUNDLE = {MANIFEST_NAME, GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME}
_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ExportSummary:
    """What an export made."""

    path: Path
    manifest: Manifest
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()
    other_tasks: tuple[Task, ...] = ()
    """What the weights can do besides."""

    @property
    def task(self) -> str:
        """What it is for, and how to choose another task."""
        return task_line(self.manifest.task, self.other_tasks)


def task_line(task: Task, others: tuple[Task, ...]) -> str:
    """What a bundle is for, and what else could have been chosen."""
    if not others:
        return task
    return f"{task} (the weights can also do {', '.join(others)}: choose with --task)"


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in _PACKAGES}
    if missing() is None:  # what the comparison ran with
        found["bertd-native"] = version("bertd-native")
    return found


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
    foreign = sorted({path.name for path in output.iterdir()} - _BUNDLE)
    if foreign:
        raise ExportError(
            f"{output} also holds {', '.join(foreign)}, which --force would delete: move it away, "
            f"or choose another --output"
        )


def _write(graph: onnx.ModelProto, tokenizer: tokenizers.Tokenizer, folder: Path) -> Path:
    """Write the graph, its weights and the tokenizer; return the path of the graph."""
    path = folder / GRAPH_NAME
    save_graph(graph, path)
    (folder / TOKENIZER_NAME).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return path


def _records(folder: Path) -> dict[str, FileRecord]:
    return {path.name: file_record(path) for path in sorted(folder.iterdir())}


def _fp32_text_parity(
    graph: onnx.ModelProto, checkpoint: Checkpoint, tolerance: float, scratch: Path
) -> tuple[TextParity, onnx.ModelProto]:
    """The text parity of the fp32 graph from which another is made, and that graph again."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        path = _write(graph, checkpoint.tokenizer, folder)
        parity = within_tolerance(compare(path, checkpoint, tolerance))
        write_manifest(folder, describe(checkpoint, "fp32", parity, _records(folder)))
        return compare_texts(folder, checkpoint, tolerance), onnx.load(str(path))


def describe(  # noqa: PLR0913 - what is known only at the end
    checkpoint: Checkpoint,
    name: str,
    parity: dict[str, Parity],
    files: dict[str, FileRecord],
    record: PrecisionRecord | None = None,
    *,
    text_parity: TextParity | None = None,
) -> Manifest:
    """The manifest of a bundle of this checkpoint; without a record, of one in fp32."""
    config = checkpoint.model.config
    record = record or PrecisionRecord()
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        task=checkpoint.task,
        architecture=type(checkpoint.model).__name__,
        model_type=config.model_type,
        layout="packed",
        precision=record.precision,
        quantization=record.quantization,
        half=record.half,
        evaluation=record.evaluation,
        opset=OPSET,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        type_vocab_size=checkpoint.type_vocab_size,
        max_tokens=checkpoint.max_tokens,
        position_offset=checkpoint.position_offset,
        unnumbered_token_id=checkpoint.unnumbered_token_id,
        outputs=checkpoint.outputs,
        dimensions=checkpoint.dimensions,
        pooling=checkpoint.pooling,
        normalized=checkpoint.normalized,
        **asdict(checkpoint.head),
        sparse=checkpoint.sparse,
        include_prompt=checkpoint.include_prompt,
        tokenizer=checkpoint.rules,
        prompts=checkpoint.prompts,
        default_prompt_name=checkpoint.default_prompt_name,
        source=Source(name=checkpoint.name, revision=checkpoint.revision),
        versions=_versions(),
        parity=parity,
        text_parity=text_parity,
        files=files,
    )


def _remarks(checkpoint: Checkpoint) -> Iterator[str]:
    """What is said of a checkpoint once it is loaded."""
    yield f"task: {task_line(checkpoint.task, checkpoint.other_tasks)}"
    for note in checkpoint.notes:
        yield f"note: {note}"
    yield describe_family(checkpoint.model.config)


def _steps(precision: Precision, *, measures: bool) -> list[ExportStep]:
    """The steps of an export; a conversion measures on its way."""
    written: tuple[ExportStep, ...] = ("write", "fusion", "parity")
    if precision != "fp32":
        return ["load", "trace", "raw texts", precision, *written]
    return ["load", "trace", *written, *(("evaluate",) if measures else ()), "raw texts"]


def _check_name(name: str | None) -> None:
    if name is not None and not name.isprintable():
        raise ExportError(f"the name {name!r} has characters that cannot be shown")


def _weights_of_a_token(checkpoint: Checkpoint) -> int:
    """How many weights of the layers a token passes; layers may share them."""
    config = checkpoint.model.config
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * wide))


def export_model(  # noqa: PLR0913 - all but two are options by keyword
    model: str,
    output: Path,
    *,
    task: str | None = None,
    tolerance: float = 1e-4,
    force: bool = False,
    name: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    inference: InferenceLabels = NAMES_SAY,
    int8: Int8Options | None = None,
    fp16: Fp16Options | None = None,
    evaluate: Path | None = None,
    max_metric_drop: float = DEFAULT_MAX_DROP,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportSummary:
    """Export a checkpoint to a bundle.

    Args:
        model: a folder, or a hub id.
        output: the bundle's folder, made here.
        task: what the bundle is for; by default what the checkpoint was trained for.
        tolerance: the largest absolute difference from PyTorch eager.
        force: replace an existing bundle.
        name: name under which the model is served; by default the checkpoint's.
        revision: branch, tag or commit of a hub id; the commit goes into the manifest.
        allow_pickle: read pickled weights where there are no safetensors; no code is run.
        inference: of zero-shot-classification, what the checkpoint's labels are called.
        int8: quantise in this manner.
        fp16: store in fp16 in this manner; with neither, the graph stays in fp32.
        evaluate: labelled examples on which the task's metric is measured.
        max_metric_drop: by how much a metric may be below that of fp32.
        progress: told what happens next.

    Raises:
        ExportError: the model is refused; nothing was written.
    """
    started = time.perf_counter()
    output = Path(os.path.abspath(output))  # noqa: PTH100 - a link at the end must stay a link
    _check_output(output, force=force)
    _check_name(name)
    step = ExportSteps(
        _steps("int8" if int8 else "fp16" if fp16 else "fp32", measures=evaluate is not None),
        progress,
    )
    with staged(output) as staging:
        step(f"loading {model}")
        with quiet():
            checkpoint = load(
                model, task, revision=revision, allow_pickle=allow_pickle, inference=inference
            )
        step.weigh(_weights_of_a_token(checkpoint))
        for line in _remarks(checkpoint):
            progress(line)
        evaluator = Evaluator(evaluate, checkpoint, max_metric_drop) if evaluate else None
        step(f"tracing {type(checkpoint.model).__name__}")
        traced = trace(checkpoint)
        gate = QualityGate(checkpoint, tolerance, evaluator)
        text_parity: TextParity | None = None
        if int8 is not None or fp16 is not None:
            step("comparing answers to raw texts")
            text_parity, traced = _fp32_text_parity(traced, checkpoint, tolerance, staging)
        if int8 is not None:
            step("quantising to int8")
            conversion: Conversion = to_int8(traced, int8, gate, staging, progress)
        elif fp16 is not None:
            step("storing in fp16")
            conversion = to_fp16(traced, fp16, gate, staging, progress)
        else:
            conversion = to_fp32(traced)
        step("writing the graph, its weights and the tokenizer")
        graph = _write(conversion.graph, checkpoint.tokenizer, staging)
        step("checking the fused attention")
        check_fusion(graph, attention_calls(checkpoint.model.config))
        step("comparing with PyTorch")
        parity = conversion.held(compare(graph, checkpoint, tolerance))
        record = conversion.described()
        if evaluator is not None and record.evaluation is None:
            step("measuring on the labelled examples")
            record = replace(record, evaluation=gate.evaluate({"fp32": graph}))
        served_as = name or safe_name(checkpoint.name)
        manifest = describe(
            checkpoint, served_as, parity, _records(staging), record, text_parity=text_parity
        )
        write_manifest(staging, manifest)
        if text_parity is None:
            step("comparing answers to raw texts")
            text_parity = compare_texts(staging, checkpoint, tolerance)
            manifest = manifest.model_copy(update={"text_parity": text_parity})
            write_manifest(staging, manifest)
        for path in staging.iterdir():
            path.chmod(0o644)  # onnx makes the weights readable by their owner alone
        size = sum(path.stat().st_size for path in staging.iterdir())
        publish(staging, output)
    seconds = time.perf_counter() - started
    return ExportSummary(output, manifest, size, seconds, checkpoint.notes, checkpoint.other_tasks)
