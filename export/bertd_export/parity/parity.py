"""Measures the final files, run by ONNX Runtime, against PyTorch eager; checks the fusion."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from bertd.bundle import (
    CU_SEQLENS,
    INPUT_IDS,
    LONG_RUNS,
    MASK_POSITIONS,
    POOLER_OUTPUT,
    POSITION_IDS,
    SENTENCE_EMBEDDING,
    SHORT_RUNS,
    TOKEN_EMBEDDINGS,
    TOKEN_TYPE_IDS,
    Parity,
)
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd.bundle.positions import number_positions
from bertd.bundle.runs import arrange

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.graph.operators import ATTENTION, FUSED_ATTENTION
from bertd_export.graph.runtime import CPU, optimized, session
from bertd_export.graph.trace import quiet
from bertd_export.parity import cases
from bertd_export.parity.cases import TokenizedText

TextOutputs = dict[str, Float32Array]


def _count(nodes: Iterable[onnx.NodeProto], *, inside: bool) -> int:
    total = 0
    for node in nodes:
        total += inside and node.op_type in {FUSED_ATTENTION, ATTENTION}
        for attribute in node.attribute:
            if attribute.HasField("g"):
                total += _count(attribute.g.node, inside=inside or node.op_type in {"Loop", "If"})
    return total


def check_fusion(graph: Path, calls: int) -> None:
    """Check that ONNX Runtime runs fused attention wherever the model calls attention.

    Args:
        graph: the file.
        calls: how often the model calls attention.

    Raises:
        ExportError: it does not.
    """
    saved = onnx.load(str(graph), load_external_data=False)
    fused = {function.name: _count(function.node, inside=False) for function in saved.functions}
    attention = [fused[node.op_type] for node in saved.graph.node if fused.get(node.op_type)]
    if len(attention) != calls:
        raise ExportError(f"the graph calls attention {len(attention)} times instead of {calls}")
    model = optimized(graph)
    found = _count(model.graph.node, inside=False)
    if found != sum(attention):
        raise ExportError(
            f"ONNX Runtime keeps {found} fused attention nodes of {sum(attention)} in {calls} calls"
        )


def _embeddings(checkpoint: Checkpoint, output: Any) -> TextOutputs:
    """Pooling in plain PyTorch, and what follows it."""
    rows = output.last_hidden_state[0]
    vectors = []
    for mode in checkpoint.pooling:
        if mode == "cls":
            vectors.append(rows[0])
        elif mode == "lasttoken":
            vectors.append(rows[-1])
        elif mode == "max":
            vectors.append(rows.max(dim=0).values)
        elif mode == "mean":
            vectors.append(rows.mean(dim=0))
        else:
            vectors.append(rows.sum(dim=0) / len(rows) ** 0.5)
    pooled = torch.cat(vectors)[None]
    for module in checkpoint.after_pooling:
        pooled = module(pooled)
    answer = {SENTENCE_EMBEDDING: pooled.numpy(), TOKEN_EMBEDDINGS: rows.numpy()}
    if POOLER_OUTPUT in checkpoint.outputs:
        answer[POOLER_OUTPUT] = output.pooler_output.numpy()
    return answer


def _eager(checkpoint: Checkpoint, text: TokenizedText) -> TextOutputs:
    """The stock model on one text, with its own positions: `[rows, …]` for each output."""
    ids = torch.from_numpy(text.ids)[None]
    options = {"attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in checkpoint.inputs:
        options["token_type_ids"] = torch.from_numpy(text.types)[None]
    with torch.inference_mode():
        output = checkpoint.model(input_ids=ids, **options)
        if checkpoint.task == "feature-extraction":
            return _embeddings(checkpoint, output)
        answer = {}
        for name, rows in checkpoint.outputs.items():
            logits = output[name] if rows == "sequences" else output[name][0]
            if rows == "masks":
                logits = logits[ids[0] == checkpoint.head.mask_token_id]
            answer[name] = logits.numpy()
    return answer


def eager_answers(checkpoint: Checkpoint, texts: Iterable[TokenizedText]) -> list[TextOutputs]:
    """Every output of the stock model for each text, in order, one text at a time."""
    with quiet():
        try:
            checkpoint.model.set_attn_implementation("sdpa")
        except (ValueError, ImportError):
            checkpoint.model.set_attn_implementation("eager")
        return [_eager(checkpoint, text) for text in texts]


def _arranged(texts: list[TokenizedText]) -> list[int]:
    """Numbers of the texts in the order in which they lie in a batch."""
    return [int(n) for n in arrange(np.array([len(text.ids) for text in texts])).order]


def feed_of(run: Any, checkpoint: Checkpoint, texts: list[TokenizedText]) -> dict[str, Int64Array]:
    """The packed batch of these texts, by the inputs that the session's graph has."""
    texts = [texts[number] for number in _arranged(texts)]
    lengths = np.array([len(text.ids) for text in texts], np.int64)
    boundaries = np.concatenate([[0], np.cumsum(lengths)])
    runs = arrange(lengths)
    offset = checkpoint.position_offset
    ids = np.concatenate([text.ids for text in texts])
    masks = np.flatnonzero(ids == checkpoint.head.mask_token_id)
    feed = {
        INPUT_IDS: ids,
        TOKEN_TYPE_IDS: np.concatenate([text.types for text in texts]),
        POSITION_IDS: number_positions(ids, boundaries, offset, checkpoint.unnumbered_token_id),
        CU_SEQLENS: boundaries,
        SHORT_RUNS: runs.short_runs,
        LONG_RUNS: runs.long_runs,
        MASK_POSITIONS: masks,
    }
    accepted = {entry.name for entry in run.get_inputs()}
    return {name: value for name, value in feed.items() if name in accepted}


def run_packed(run: Any, checkpoint: Checkpoint, texts: list[TokenizedText]) -> list[TextOutputs]:
    """Every output of each text, run as one packed batch."""
    feed = feed_of(run, checkpoint, texts)
    names = list(checkpoint.outputs)
    results = dict(zip(names, run.run(names, feed), strict=True))
    boundaries = feed[CU_SEQLENS]
    edges = {"sequences": np.arange(len(texts) + 1), "tokens": boundaries}
    if MASK_POSITIONS in feed:
        edges["masks"] = np.searchsorted(feed[MASK_POSITIONS], boundaries)
    answers: dict[int, TextOutputs] = {}
    for place, number in enumerate(_arranged(texts)):
        answers[number] = {
            name: results[name][slice(*edges[rows][place : place + 2])]
            for name, rows in checkpoint.outputs.items()
        }
    return [answers[number] for number in range(len(texts))]


def _difference(got: Float32Array, want: Float32Array, case: str) -> float:
    """The largest absolute difference; 0 where there is nothing to compare."""
    if got.shape != want.shape:
        raise ExportError(f"shape {got.shape} instead of PyTorch's {want.shape}: {case}")
    difference = float(np.abs(got - want).max(initial=0.0))
    if not np.isfinite(difference):
        raise ExportError(f"not finite: {case}")
    return difference


def measure(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare every output over the grid of cases and hold the tolerance.

    Raises:
        ExportError: a difference is above the tolerance, or :func:`compare` refuses.
    """
    found = compare(graph, checkpoint, tolerance)
    for output, parity in found.items():
        if parity.max_abs_diff > tolerance:
            raise ExportError(
                f"{output} differs from PyTorch by {parity.max_abs_diff:.3g}, more than the "
                f"tolerance {tolerance:.3g}; worst case: {parity.worst_case}"
            )
    return found


@dataclass(frozen=True)
class Observation:
    """What a graph answers, against PyTorch and against itself.

    Attributes:
        parity: how far each output is from PyTorch.
        varying: the first answer whose bits depend on its batch; None if there is none.
    """

    parity: dict[str, Parity]
    varying: str | None


def observe(
    graph: Path, checkpoint: Checkpoint, tolerance: float, provider: str = CPU
) -> Observation:
    """Compare every output over the grid of cases, alone and in batches (:mod:`.cases`).

    Args:
        graph: the final file.
        checkpoint: the model that PyTorch runs, one text at a time.
        tolerance: written into the result; whether it holds is for the caller to see.
        provider: what runs the graph, in ONNX Runtime's name.

    Raises:
        ExportError: an answer is not finite.
    """
    run = session(graph, provider=provider)
    texts = cases.texts(checkpoint)
    expected = dict(zip(texts, eager_answers(checkpoint, texts.values()), strict=True))
    alone: dict[str, TextOutputs] = {}
    varying: str | None = None
    worst = dict.fromkeys(checkpoint.outputs, (-1.0, ""))
    count = 0
    for number, batch in enumerate(cases.batches(texts)):
        answers = run_packed(run, checkpoint, [texts[name] for name in batch])
        for name, answer in zip(batch, answers, strict=True):
            size = len(batch)
            case = f"{name}, " + ("alone" if size == 1 else f"in batch {number} of {size} texts")
            count += 1
            first = alone.setdefault(name, answer)
            for output, got in answer.items():
                difference = _difference(got, expected[name][output], f"{output}, {case}")
                if difference > worst[output][0]:
                    worst[output] = (difference, case)
                if varying is None and not np.array_equal(got, first[output]):
                    varying = f"{output} is not bit-identical to the text alone: {case}"
    parity = {
        output: Parity(max_abs_diff=difference, tolerance=tolerance, cases=count, worst_case=case)
        for output, (difference, case) in worst.items()
    }
    return Observation(parity, varying)


def compare(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare every output over the grid of cases on this CPU, as :func:`observe` does.

    Args:
        graph: the final file.
        checkpoint: the model that PyTorch runs, one text at a time.
        tolerance: written into the result; whether it holds is for the caller to see.

    Raises:
        ExportError: an answer is not finite, or depends on its batch.
    """
    found = observe(graph, checkpoint, tolerance)
    if found.varying is not None:
        raise ExportError(found.varying)
    return found.parity
