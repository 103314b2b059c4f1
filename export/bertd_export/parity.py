"""Measures the final files, run by ONNX Runtime, against PyTorch eager; checks the fusion."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from bertd.bundle import (
    CU_SEQLENS,
    INPUT_IDS,
    POSITION_IDS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_TYPE_IDS,
    Parity,
)

from bertd_export import cases
from bertd_export.cases import Text
from bertd_export.checkpoint import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.operators import FUSED_ATTENTION
from bertd_export.runtime import optimized, session
from bertd_export.trace import quiet

_OUTPUTS = (SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS)

_Floats = npt.NDArray[np.float32]


def _count(nodes: Iterable[onnx.NodeProto], *, inside: bool) -> int:
    total = 0
    for node in nodes:
        total += inside and node.op_type == FUSED_ATTENTION
        for attribute in node.attribute:
            if attribute.HasField("g"):
                total += _count(attribute.g.node, inside=inside or node.op_type == "Loop")
    return total


def check_fusion(graph: Path, layers: int) -> None:
    """Check that ONNX Runtime runs one fused attention node per layer.

    Raises:
        ExportError: it does not.
    """
    model = optimized(graph)
    found = _count(model.graph.node, inside=False)
    if found != layers:
        raise ExportError(f"ONNX Runtime runs {found} fused attention nodes for {layers} layers")


def _eager(checkpoint: Checkpoint, text: Text) -> tuple[_Floats, _Floats]:
    """The stock model on one text, its own positions, then pooling in plain PyTorch."""
    ids = torch.from_numpy(text.ids)[None]
    options = {"attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in checkpoint.inputs:
        options["token_type_ids"] = torch.from_numpy(text.types)[None]
    with torch.inference_mode():
        rows = checkpoint.model(input_ids=ids, **options).last_hidden_state[0]
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
    return pooled[0].numpy(), rows.numpy()


def feed_of(
    run: Any, checkpoint: Checkpoint, texts: list[Text]
) -> dict[str, npt.NDArray[np.int64]]:
    """The packed batch of these texts, by the inputs that the session's graph has."""
    lengths = [len(text.ids) for text in texts]
    offset = checkpoint.position_offset
    feed = {
        INPUT_IDS: np.concatenate([text.ids for text in texts]),
        TOKEN_TYPE_IDS: np.concatenate([text.types for text in texts]),
        POSITION_IDS: np.concatenate([np.arange(n, dtype=np.int64) + offset for n in lengths]),
        CU_SEQLENS: np.cumsum([0, *lengths], dtype=np.int64),
    }
    accepted = {entry.name for entry in run.get_inputs()}
    return {name: value for name, value in feed.items() if name in accepted}


def run_packed(
    run: Any, checkpoint: Checkpoint, texts: list[Text]
) -> list[tuple[_Floats, _Floats]]:
    """Sentence embedding and token embeddings of each text, run as one packed batch."""
    feed = feed_of(run, checkpoint, texts)
    boundaries = feed[CU_SEQLENS]
    sentences, rows = run.run(list(_OUTPUTS), feed)
    return [(sentences[i], rows[a:b]) for i, (a, b) in enumerate(pairwise(boundaries))]


def measure(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare both outputs over the grid of cases and hold the tolerance.

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


def compare(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare both outputs over the grid of cases, alone and in batches (:mod:`.cases`).

    Args:
        graph: the final file.
        checkpoint: the model that PyTorch runs, one text at a time.
        tolerance: written into the result; whether it holds is for the caller to see.

    Raises:
        ExportError: an answer is not finite, or depends on its batch.
    """
    run = session(graph)
    texts = cases.texts(checkpoint)
    with quiet():
        try:
            checkpoint.model.set_attn_implementation("sdpa")
        except (ValueError, ImportError) as error:
            raise ExportError(f"PyTorch eager cannot be set up: {error}") from error
        expected = {name: _eager(checkpoint, text) for name, text in texts.items()}
    alone: dict[str, tuple[_Floats, _Floats]] = {}
    worst = dict.fromkeys(_OUTPUTS, (-1.0, ""))
    count = 0
    for number, batch in enumerate(cases.batches(list(texts))):
        answers = run_packed(run, checkpoint, [texts[name] for name in batch])
        for name, answer in zip(batch, answers, strict=True):
            size = len(batch)
            case = f"{name}, " + ("alone" if size == 1 else f"in batch {number} of {size} texts")
            count += 1
            first = alone.setdefault(name, answer)
            for output, got, same, want in zip(
                _OUTPUTS, answer, first, expected[name], strict=True
            ):
                difference = float(np.abs(got - want).max())
                if not np.isfinite(difference):
                    raise ExportError(f"{output} is not finite: {case}")
                if difference > worst[output][0]:
                    worst[output] = (difference, case)
                if not np.array_equal(got, same):
                    raise ExportError(f"{output} is not bit-identical to the text alone: {case}")
    return {
        output: Parity(max_abs_diff=difference, tolerance=tolerance, cases=count, worst_case=case)
        for output, (difference, case) in worst.items()
    }
