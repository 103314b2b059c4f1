"""The bundle: a folder that holds one exported model, and its manifest.

::

    BUNDLE/
      bertd.json       the manifest (class Manifest), written last
      model.onnx       the packed graph
      model.onnx.data  its weights, external so that they can be memory-mapped
      tokenizer.json   Hugging Face tokenizers' own format

The exporter writes a bundle whole or not at all; a reader calls :func:`read_manifest` and
:func:`verify_files` before it trusts anything in the folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

FORMAT_VERSION = 3
MANIFEST_NAME = "bertd.json"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
GRAPH_NAME = "model.onnx"
WEIGHTS_NAME = "model.onnx.data"
TOKENIZER_NAME = "tokenizer.json"

INPUT_IDS = "input_ids"
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105 - no password
POSITION_IDS = "position_ids"
CU_SEQLENS = "cu_seqlens"
SHORT_RUNS = "short_runs"  # see bertd.bundle.runs
LONG_RUNS = "long_runs"
POOLED_TOKENS = "pooled_tokens"
POOLED_SEQLENS = "pooled_seqlens"
SENTENCE_EMBEDDING = "sentence_embedding"
TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - no password
POOLER_OUTPUT = "pooler_output"
LOGITS = "logits"
START_LOGITS = "start_logits"
END_LOGITS = "end_logits"
MASK_POSITIONS = "mask_positions"
# Not of the graph: what a reader makes of fill-mask's logits at all tokens (heads.sparse_weights).
SPARSE_EMBEDDING = "sparse_embedding"

Task = Literal[
    "feature-extraction",
    "text-classification",
    "text-ranking",
    "token-classification",
    "question-answering",
    "fill-mask",
    "zero-shot-classification",
]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
RankingActivation = Literal["sigmoid", "identity"]
# Over the logits of all tokens: log(1 + activation), then the largest, or the sum.
SparsePooling = Literal["max", "sum"]
SparseActivation = Literal["relu", "log1p_relu"]
FirstAxis = Literal["sequences", "tokens", "masks"]

Precision = Literal["fp32", "int8", "fp16"]
Pooling = Literal["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

_NEEDS: dict[Task, tuple[str, ...]] = {
    "feature-extraction": ("dimensions", "pooling"),
    "text-classification": ("labels", "problem_type"),
    "text-ranking": ("activation",),
    "token-classification": ("labels",),
    "question-answering": (),
    "fill-mask": ("mask_token_id",),
    "zero-shot-classification": ("labels", "entailment_label", "contradiction_label"),
}


class BundleError(ValueError):
    """A folder is not a bundle, or not one that can be trusted. The message says what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """One file of a bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Parity(_Record):
    """How far one output of the final graph is from PyTorch eager, measured at export."""

    max_abs_diff: float = Field(ge=0)
    tolerance: float = Field(gt=0)
    cases: int = Field(gt=0, description="texts compared")
    worst_case: str = Field(description="the text and batch with the largest difference")


class Evaluation(_Record):
    """The task's own metrics on the user's labelled data."""

    data: str = Field(description="file of examples")
    data_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    examples: int = Field(gt=0)
    metrics: dict[str, dict[Precision, float]] = Field(
        min_length=1, description="by name, the figure in fp32 and in the bundle's own precision"
    )


class HalfPrecision(_Record):
    """What of an fp16 bundle stayed in fp32, and how well it agrees."""

    keep_fp32: tuple[str, ...] = Field(
        description="nodes whose values could leave the range of fp16"
    )
    largest: float = Field(ge=0, description="largest absolute value seen in the graph")
    texts: str = Field(description="file of texts, or built-in")
    texts_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    compared_texts: int = Field(gt=0)
    mean_cosine: float = Field(
        description="to fp32, every value rounded to fp16; for logits, on the same scale"
    )
    min_cosine: float = Field(description="the same, of the worst text")


class Quantization(_Record):
    """How the linear layers became int8, and what that cost."""

    scheme: int = Field(gt=0, description="version of the formulation")
    linear_layers: int = Field(gt=0, description="linear layers of the encoder, all precisions")
    keep_fp32: tuple[str, ...] = Field(description="linear layers that stayed in fp32")
    calibration: str = Field(description="file of texts, or built-in")
    calibration_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    compared_texts: int = Field(gt=0, description="texts that calibration did not see")
    mean_cosine: float = Field(
        description="int8 to fp32, over those texts; for logits, on the same scale"
    )
    min_cosine: float = Field(description="int8 to fp32, the worst of those texts")


class TokenizerRules(_Record):
    """What the checkpoint's own tokenizer, as transformers loads it, does to texts."""

    kind: str = Field(min_length=1, description="its class, such as BertTokenizer")
    token_types: bool = Field(
        description="whether the tokens of a second text have type 1; else every type is 0"
    )
    token_types_reason: str = Field(min_length=1, description="what decided that")
    lower_case: bool = Field(description="whether upper and lower case are read alike")


class TextParity(_Record):
    """How far bertd's answers to raw texts are from the reference library's, measured at export."""

    reference: str = Field(
        min_length=1, description="what was called, such as SentenceTransformer.encode"
    )
    max_abs_diff: float = Field(ge=0)
    tolerance: float = Field(gt=0)
    texts: int = Field(gt=0, description="texts and pairs compared")
    worst_case: str = Field(description="the text with the largest difference")
    versions: dict[str, str] = Field(min_length=1, description="packages that were compared with")


class SparseRules(_Record):
    """How the logits of fill-mask become a sparse vector."""

    pooling: SparsePooling = "max"
    activation: SparseActivation = "relu"
    max_active_dims: int | None = Field(
        default=None, gt=0, description="only so many weights stay, the largest; None for all"
    )


class LabelScheme(_Record):
    """How the labels of token-classification say where an entity begins and ends."""

    position: Literal["prefix", "suffix"] = Field(
        description="where the letter stands: B-PER or PER-B"
    )
    separator: str = Field(min_length=1, max_length=1, description="between letter and name")
    letters: tuple[Annotated[str, Field(pattern="^[BILMEUSWbilmeusw]$")], ...] = Field(
        min_length=1, description="those that the labels have (see bertd.bundle.tags)"
    )
    outside: str = Field(default="O", description="label of what belongs to no entity")


class Source(_Record):
    """Where the checkpoint came from."""

    name: str = Field(description="folder name or hub id")
    revision: str | None = Field(default=None, description="commit of a hub checkpoint")


class Manifest(_Record):
    """What ``bertd.json`` says. Lengths count tokens, special tokens included."""

    format_version: int
    name: str = Field(min_length=1, description="default name under which it is served")
    task: Task
    architecture: str = Field(description="class of the checkpoint, such as BertModel")
    model_type: str = Field(description="family, as in the checkpoint's config")
    layout: Literal["packed"]
    precision: Precision
    opset: int
    hidden_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    type_vocab_size: int = Field(ge=1, description="token types that the graph accepts")
    max_tokens: int = Field(gt=0, description="longest sequence that the model reads")
    position_offset: int = Field(ge=0, description="position id of a sequence's first token")
    unnumbered_token_id: int | None = Field(
        default=None, description="token that takes no position (see bertd.bundle.positions)"
    )
    outputs: dict[str, FirstAxis] = Field(
        min_length=1, description="outputs of the graph, and what their first axis counts"
    )
    dimensions: int = Field(
        default=0, ge=0, description="float32 values in one sentence embedding; 0 without one"
    )
    pooling: tuple[Pooling, ...] = ()
    normalized: bool = False
    labels: tuple[str, ...] = Field(default=(), description="names of the logits, in order")
    label_scheme: LabelScheme | None = Field(
        default=None, description="of token-classification; None where labels are bare names"
    )
    problem_type: ProblemType | None = Field(
        default=None, description="how the logits of text-classification become scores"
    )
    activation: RankingActivation | None = Field(
        default=None,
        description="how the logits of a cross-encoder become scores: of text-ranking, and of "
        "text-classification where sentence-transformers' CrossEncoder has saved the checkpoint",
    )
    entailment_label: int | None = Field(
        default=None, ge=0, description="index of the label that zero-shot-classification reads"
    )
    mask_token_id: int | None = Field(
        default=None, ge=0, description="token that fill-mask fills; its rows alone are projected"
    )
    contradiction_label: int | None = Field(
        default=None,
        ge=0,
        description="index of the label that zero-shot-classification weighs against entailment",
    )
    sparse: SparseRules | None = Field(
        default=None, description="of fill-mask, where the checkpoint makes sparse vectors"
    )
    include_prompt: bool = Field(
        default=True, description="whether pooling counts the tokens of a prompt"
    )
    tokenizer: TokenizerRules
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None
    source: Source
    quantization: Quantization | None = Field(default=None, description="of an int8 bundle")
    half: HalfPrecision | None = Field(default=None, description="of an fp16 bundle")
    evaluation: Evaluation | None = Field(default=None, description="on labelled data, if any")
    versions: dict[str, str] = Field(description="packages that made the bundle")
    parity: dict[str, Parity] = Field(min_length=1, description="by output of the graph")
    text_parity: TextParity | None = Field(
        default=None, description="from raw text on; None where the precision changes answers"
    )
    files: dict[str, FileRecord]

    @model_validator(mode="after")
    def _what_task_and_precision_need(self) -> Self:
        given = {
            "dimensions": self.dimensions > 0,
            "pooling": bool(self.pooling),
            "labels": bool(self.labels),
            "problem_type": self.problem_type is not None,
            "activation": self.activation is not None,
            "entailment_label": self.entailment_label is not None,
            "contradiction_label": self.contradiction_label is not None,
            "mask_token_id": self.mask_token_id is not None,
        }
        if (self.quantization is not None) != (self.precision == "int8"):
            raise ValueError("quantization goes with precision int8, and with no other")
        if (self.half is not None) != (self.precision == "fp16"):
            raise ValueError("half goes with precision fp16, and with no other")
        lacking = [name for name in _NEEDS[self.task] if not given[name]]
        if lacking:
            raise ValueError(f"task {self.task} needs {', '.join(lacking)}")
        return self

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
                raise ValueError(f"file name {name!r} must be a plain name inside the bundle")
        for name in (GRAPH_NAME, TOKENIZER_NAME):
            if name not in files:
                raise ValueError(f"{name} is not listed")
        return files


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``bertd.json`` of a bundle.

    Raises:
        BundleError: there is no manifest, it has another format version, or a field is wrong.
    """
    path = folder / MANIFEST_NAME
    try:
        raw = json.loads(manifest_bytes(folder))
    except FileNotFoundError:
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST_NAME}; "
            f"make one with `bertd export MODEL --output DIR`"
        ) from None
    except BundleError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version!r}; this bertd reads version {FORMAT_VERSION}: "
            f"export the model again with this bertd"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise BundleError(f"{path} is not a valid manifest: {problems}") from error


def manifest_bytes(folder: Path) -> bytes:
    """The manifest as it is written, unless it lies elsewhere or is none by its size alone.

    Raises:
        OSError: it is not there.
        BundleError: the message says what to do.
    """
    path = folder / MANIFEST_NAME
    if path.resolve(strict=True).parent != path.parent.resolve():
        raise BundleError(f"{path} is a link that leaves the bundle: copy the file into it")
    if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path} is no file of at most {MAX_MANIFEST_BYTES} bytes, as a manifest is: export "
            "the model again"
        )
    return path.read_bytes()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bertd.json`` into a bundle's folder."""
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def file_record(path: Path) -> FileRecord:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(sha256=digest, bytes=path.stat().st_size)


def file_problem(folder: Path, name: str, expected: FileRecord) -> str | None:
    """What is wrong with one file of a bundle, or None where it is as it was exported."""
    path = folder / name
    if not path.is_file():
        return f"{folder} lacks {name}: export the model again"
    if path.resolve().parent != folder.resolve():
        return f"{path} is a link that leaves the bundle: copy the file into it"
    size = path.stat().st_size
    if size != expected.bytes:  # said before all of a huge file is hashed
        return (
            f"{path} is not the file that was exported ({size} bytes, expected {expected.bytes}): "
            "export the model again"
        )
    try:
        actual = file_record(path)
    except OSError as error:
        return f"{path} cannot be read: {error}"
    if actual != expected:
        return (
            f"{path} is not the file that was exported (SHA-256 {actual.sha256[:12]}…, "
            f"expected {expected.sha256[:12]}…): export the model again"
        )
    return None


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file of the manifest is there, unchanged, and inside the folder.

    Raises:
        BundleError: a file is missing, altered, or a link that leaves the folder.
    """
    for name, expected in manifest.files.items():
        problem = file_problem(folder, name, expected)
        if problem is not None:
            raise BundleError(problem)
