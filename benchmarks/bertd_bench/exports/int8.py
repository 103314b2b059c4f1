"""int8 against fp32, PyTorch eager, and ONNX Runtime's own dynamic int8 of the same graph.

::

    checkpoint -> fp32 bundle -> stock dynamic int8, in several settings
               -> int8 bundle
               -> PyTorch eager

All run the same token ids in turns. Each also embeds texts alone and together: how near is it to
fp32, and does an answer depend on its neighbours?
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bertd.bundle import GRAPH_NAME, SENTENCE_EMBEDDING, Manifest, read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.checkpoint.tasks import loader
from bertd_export.errors import ExportError
from bertd_export.parity.agreement import agreement
from bertd_export.quantization.calibration import read_sample, tokenized
from bertd_export.quantization.int8 import Int8Options
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.models.default_model import checkpoint_folder
from bertd_server.system import cpu
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import BaseModel, ValidationError

from bertd_bench.contestants import checkpoints
from bertd_bench.exports import speed
from bertd_bench.harness import machine, texts, timing

EAGER = "PyTorch eager"
FP32 = "fp32"
OURS = "int8"
# As `quantize_dynamic` is called; 7 bits, because 8 saturate in AVX2's integer product.
STOCK: dict[str, dict[str, bool]] = {
    "stock, 7 bits per channel": {"per_channel": True, "reduce_range": True},
    "stock, 8 bits per channel": {"per_channel": True, "reduce_range": False},
    "stock, 8 bits per tensor": {"per_channel": False, "reduce_range": False},
}
_SINGLES = (8, 32, 128, 256, 384)
_TOKENS_PER_TURN = 3_000  # a turn of a short text repeats it more often
_PAUSE_SECONDS = 0.05


class Contestant(BaseModel, frozen=True):
    """One way to compute the model.

    `mean_cosine` and `min_cosine` are to fp32; `neighbours` is the largest change of an embedding
    when its text lies in a batch; `milliseconds` are medians by case. None for PyTorch eager.
    """

    name: str
    megabytes: float | None = None
    mean_cosine: float | None = None
    min_cosine: float | None = None
    neighbours: float | None = None
    milliseconds: dict[str, float]
    p90: dict[str, float]


class Comparison(BaseModel, frozen=True):
    """One run of the benchmark."""

    model: str
    threads: int
    machine: machine.Machine
    judged_on: str
    judged_texts: int
    contestants: list[Contestant]

    def ratios(self, over: str, name: str = OURS) -> dict[str, float]:
        """Median time of `over` over that of `name`, by case: more than 1 is faster."""
        times = {one.name: one.milliseconds for one in self.contestants}
        return {case: times[over][case] / value for case, value in times[name].items()}


def measure(  # noqa: PLR0913 - the choices of one run
    checkpoint: Path | None,
    size: str | None,
    judge: Path | None,
    *,
    threads: int | None,
    rounds: int,
    progress: Callable[[str], None],
) -> Comparison:
    """Export a model in every way, compare the answers, and time them in turns.

    Args:
        checkpoint: makes sentence embeddings; None for the default model.
        size: of BERT with random weights, instead of a checkpoint.
        judge: texts to compare answers on; None for the built-in ones.
        threads: None for all usable cores.
        rounds: turns of each contestant.
        progress: told what happens next.

    Raises:
        ExportError: the model cannot be exported, or makes no sentence embeddings.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    torch.set_num_threads(threads)
    sample = read_sample(judge)
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as name:
        scratch = Path(name)
        source = checkpoint or (checkpoint_folder() if size is None else scratch / "checkpoint")
        if size is not None:
            checkpoints.save_random("bert", "feature-extraction", size, source)
        folders = _graphs(source, scratch, progress)
        manifest = read_manifest(folders[FP32])
        engines = {
            graph: Engine(folder, manifest, EngineOptions(threads))
            for graph, folder in folders.items()
        }
        judged = sample.judge if judge is None else [*sample.calibrate, *sample.judge]
        progress(f"comparing answers to {len(judged)} texts")
        sequences = [
            TokenSequence(text.ids, text.types) for text in tokenized(load(str(source)), judged)
        ]
        quality = _quality(engines, sequences)
        network = loader(manifest.task).from_pretrained(source, dtype=torch.float32).eval()
        words = speed.Words.of(folders[FP32])
        times = _times(engines, network, words, manifest, rounds, progress)
        sizes = {
            graph: sum(file.stat().st_size for file in folder.glob(f"{GRAPH_NAME}*")) / 1e6
            for graph, folder in folders.items()
        }
    return Comparison(
        model=_name(checkpoint, size),
        threads=threads,
        machine=here,
        judged_on=sample.source,
        judged_texts=len(sequences),
        contestants=[
            Contestant(
                name=name,
                megabytes=sizes.get(name),
                **quality.get(name, {}),
                milliseconds={case: summary[name].median for case, summary in times.items()},
                p90={case: summary[name].p90 for case, summary in times.items()},
            )
            for name in (EAGER, *folders)
        ],
    )


def _name(checkpoint: Path | None, size: str | None) -> str:
    if size is not None:
        return f"BERT-{size}, random weights"
    return checkpoint.resolve().name if checkpoint else "all-MiniLM-L6-v2"


def _graphs(source: Path, scratch: Path, progress: Callable[[str], None]) -> dict[str, Path]:
    """The folder of each graph, by the name of the contestant."""
    folders = {
        name: scratch / f"graph-{number}" for number, name in enumerate((FP32, OURS, *STOCK))
    }
    progress(f"exporting {source.name}")
    export_model(str(source), folders[FP32])
    if SENTENCE_EMBEDDING not in read_manifest(folders[FP32]).outputs:
        raise ExportError(f"{source} makes no sentence embeddings to compare")
    export_model(str(source), folders[OURS], int8=Int8Options())
    for name, settings in STOCK.items():
        progress(f"quantising: {name}")
        folders[name].mkdir()
        quantize_dynamic(
            str(folders[FP32] / GRAPH_NAME),
            str(folders[name] / GRAPH_NAME),
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            **settings,
        )
    return folders


def _quality(
    engines: Mapping[str, Engine], sequences: Sequence[TokenSequence]
) -> dict[str, dict[str, float]]:
    """Agreement with fp32 of each text alone, and how far it moves in a batch of all."""
    alone = {
        name: [engine.embed([one], wide=engine.has_wide)[0] for one in sequences]
        for name, engine in engines.items()
    }
    found = {}
    for name, engine in engines.items():
        together = engine.embed(sequences, wide=engine.has_wide)
        to_fp32 = agreement(alone[FP32], alone[name])
        found[name] = {
            "mean_cosine": to_fp32.mean,
            "min_cosine": to_fp32.lowest,
            "neighbours": float(np.abs(together - np.stack(alone[name])).max()),
        }
    return found


def _times(  # noqa: PLR0913, PLR0917 - internal
    engines: Mapping[str, Engine],
    network: Any,
    words: speed.Words,
    manifest: Manifest,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, dict[str, timing.Summary]]:
    cases = {f"{length} tokens": [length] for length in _SINGLES if length <= manifest.max_tokens}
    cases[f"{len(texts.MIXED_LENGTHS)} mixed"] = list(texts.MIXED_LENGTHS)
    times = {}
    for case, lengths in cases.items():
        progress(f"timing {case}")
        batch = speed.IdBatch.draw(lengths, manifest, words)
        padded = [batch.padded(network.config.pad_token_id or 0)]
        calls: dict[str, Callable[[], object]] = {
            name: partial(speed.run_engine, engine, batch, [SENTENCE_EMBEDDING])
            for name, engine in engines.items()
        }
        repeats = min(max(_TOKENS_PER_TURN // sum(lengths), 8), 40)
        calls[EAGER] = partial(speed.run_eager, network, padded)
        samples = timing.measure(
            calls,
            timing.Schedule(rounds, repeats, warmups=2, pause_seconds=_PAUSE_SECONDS),
            random.Random(0),  # noqa: S311 - the order of turns is no secret
        )
        times[case] = {name: timing.summarize(values) for name, values in samples.items()}
    return times


def read(path: Path) -> Comparison:
    """Read a result.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result of `bertd bench int8`.
    """
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is not a result of `bertd bench int8`") from error


def render(results: Sequence[tuple[str, Comparison]]) -> str:
    """One table, with its caption, for each result.

    Args:
        results: where each JSON file is, as seen from the document, and what is in it.
    """
    return "\n\n".join(
        f"{to_markdown(result).rstrip()} Raw: [`{link}`]({link})." for link, result in results
    )


def to_markdown(result: Comparison) -> str:
    """How much faster int8 is than each of the others, and how near each is to fp32."""
    cases = list(result.contestants[0].milliseconds)
    head = ["int8 against", *cases, "cosine", "lowest", "moved by neighbours", "MB"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for one in result.contestants:
        ratios = result.ratios(one.name)
        cells = [one.name]
        cells += [f"{ratios[case]:.2f}x" for case in cases]
        cells.append("" if one.mean_cosine is None else f"{one.mean_cosine:.4f}")
        cells.append("" if one.min_cosine is None else f"{one.min_cosine:.4f}")
        cells.append("" if one.neighbours is None else f"{one.neighbours:.1e}")
        cells.append("" if one.megabytes is None else f"{one.megabytes:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _caption(result)]) + "\n"


def _caption(result: Comparison) -> str:
    return (
        f"{result.model}; {result.threads} threads; {result.machine.cpu}; "
        f"load {result.machine.load_average[0]:.2f} before the run. "
        "Times: the median of the row over that of int8. Cosine to fp32 over "
        f"{result.judged_texts} texts ({result.judged_on}), and the largest change of an embedding "
        "in a batch of them all."
    )
