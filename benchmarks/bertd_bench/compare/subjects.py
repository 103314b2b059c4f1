"""The models of a comparison: a checkpoint for peers, bundles for bertd, and texts of exact length.

::

    minilm            all-MiniLM-L6-v2, with trained weights; embeddings
    mini, base, large BERT with random weights, any task
    DIR               a checkpoint of your own
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd.bundle import Task
from bertd_export.bundle import export_model
from bertd_export.errors import ExportError
from bertd_export.quantization.int8 import Int8Options
from bertd_server.models import default_model
from tokenizers import Tokenizer

from bertd_bench.compare.process import PeerError
from bertd_bench.contestants import checkpoints
from bertd_bench.harness.texts import MIXED_LENGTHS, build_text

MINILM = "minilm"

# What transformers 5 no longer writes, and peers that are installed with version 4 ask for.
_FOR_OLDER_READERS: dict[str, dict[str, object]] = {
    "config.json": {"position_embedding_type": "absolute"},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """One model, ready for all.

    Attributes:
        name: as tables show it.
        checkpoint: its folder.
        bundles: by precision.
        lacks: precisions that could not be exported; why.
    """

    name: str
    task: Task
    checkpoint: Path
    bundles: dict[str, str]
    lacks: dict[str, str]

    @property
    def max_tokens(self) -> int:
        """The longest text that it reads."""
        return bundle.read_manifest(Path(self.bundles["fp32"])).max_tokens

    @property
    def weight_bytes(self) -> int:
        """Of the checkpoint's weights."""
        return sum(path.stat().st_size for path in self.checkpoint.glob("*.safetensors"))


def prepare(
    model: str, task: Task, scratch: Path, progress: Callable[[str], None], *, int8: bool
) -> PreparedModel:
    """Find or make the checkpoint, and export it.

    Args:
        model: one of those above.
        task: of its head.
        scratch: an empty folder for what is made.
        progress: told what happens.
        int8: whether bertd's int8 is wanted.

    Raises:
        PeerError: there is no such model, or not for this task.
        ExportError: fp32 cannot be exported.
    """
    name, checkpoint = _checkpoint(model, task, scratch)
    progress(f"exporting {name}")
    export_model(str(checkpoint), scratch / "fp32", task=task)
    bundles = {"fp32": str(scratch / "fp32")}
    lacks: dict[str, str] = {}
    if int8:
        try:
            export_model(str(checkpoint), scratch / "int8", task=task, int8=Int8Options())
            bundles["int8"] = str(scratch / "int8")
        except ExportError as error:
            lacks["int8"] = str(error).splitlines()[0]
    return PreparedModel(name, task, checkpoint, bundles, lacks)


def _checkpoint(model: str, task: Task, scratch: Path) -> tuple[str, Path]:
    if model == MINILM:
        if task != "feature-extraction":
            raise PeerError(f"{MINILM} makes embeddings: for {task} choose --model mini")
        try:
            return "all-MiniLM-L6-v2", default_model.checkpoint_folder()
        except default_model.NoDefaultModelError as error:
            raise PeerError(str(error)) from error
    if model in checkpoints.SIZES:
        folder = scratch / "checkpoint"
        checkpoints.save_random("bert", task, model, folder)
        for name, said in _FOR_OLDER_READERS.items():
            kept = json.loads((folder / name).read_text(encoding="utf-8"))
            (folder / name).write_text(json.dumps(kept | said), encoding="utf-8")
        if task == "feature-extraction":
            _save_pooling(folder, checkpoints.SIZES[model].hidden)
        return f"BERT-{model}, random weights", folder
    if not Path(model).is_dir():
        raise PeerError(
            f"--model {model} is neither a folder nor one of {MINILM}, "
            f"{', '.join(checkpoints.SIZES)}"
        )
    return Path(model).resolve().name, Path(model)


def _save_pooling(folder: Path, hidden: int) -> None:
    """Say, as sentence-transformers does, that vectors are means of unit length."""
    kinds = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    for path, said in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": checkpoints.POSITIONS},
        "1_Pooling/config.json": pooling,
    }.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(said), encoding="utf-8")
    (folder / "2_Normalize").mkdir()


@dataclass(frozen=True, slots=True)
class CallTexts:
    """The texts of one call."""

    name: str
    texts: tuple[str, ...]
    lengths: tuple[int, ...]


def build_samples(
    model: PreparedModel, lengths: Sequence[int], batches: Sequence[int]
) -> list[CallTexts]:
    """Texts of exactly so many tokens: each length with each batch, and one mixed batch.

    Lengths that the model does not read are left out.
    """
    tokenizer = Tokenizer.from_file(str(Path(model.bundles["fp32"]) / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(0)  # noqa: S311 - words, not secrets
    limit = model.max_tokens
    wanted = {
        f"{length} tokens" if batch == 1 else f"{batch} x {length} tokens": (length,) * batch
        for batch in batches
        for length in lengths
        if length <= limit
    }
    if max(MIXED_LENGTHS) <= limit:
        wanted[f"{len(MIXED_LENGTHS)} mixed"] = MIXED_LENGTHS
    return [
        CallTexts(name, tuple(build_text(tokenizer, tokens, rng) for tokens in counts), counts)
        for name, counts in wanted.items()
    ]
