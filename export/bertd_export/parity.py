"""Measures the final files, run by ONNX Runtime, against PyTorch eager; checks the fusion."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
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

from bertd_export.checkpoint import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.operators import FUSED_ATTENTION
from bertd_export.trace import quiet

LENGTHS = (2, 3, 7, 16, 33, 128)
_OUTPUTS = (SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS)

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Text:
    ids: _Ints
    types: _Ints


def _session(graph: Path, options: ort.SessionOptions | None = None) -> Any:
    options = options or ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not load the graph: {error}") from error


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
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, "optimized.data")
        _session(graph, options)
        model = onnx.load(str(optimized), load_external_data=False)
    found = _count(model.graph.node, inside=False)
    if found != layers:
        raise ExportError(f"ONNX Runtime runs {found} fused attention nodes for {layers} layers")


def _eager(checkpoint: Checkpoint, text: _Text) -> tuple[_Floats, _Floats]:
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


def _packed(
    session: Any, checkpoint: Checkpoint, texts: list[_Text]
) -> list[tuple[_Floats, _Floats]]:
    lengths = [len(text.ids) for text in texts]
    boundaries = np.cumsum([0, *lengths], dtype=np.int64)
    offset = checkpoint.position_offset
    feed = {
        INPUT_IDS: np.concatenate([text.ids for text in texts]),
        TOKEN_TYPE_IDS: np.concatenate([text.types for text in texts]),
        POSITION_IDS: np.concatenate([np.arange(n, dtype=np.int64) + offset for n in lengths]),
        CU_SEQLENS: boundaries,
    }
    accepted = {entry.name for entry in session.get_inputs()}
    feed = {name: value for name, value in feed.items() if name in accepted}
    sentences, rows = session.run(list(_OUTPUTS), feed)
    return [(sentences[i], rows[a:b]) for i, (a, b) in enumerate(pairwise(boundaries))]


def _texts(checkpoint: Checkpoint) -> dict[int, _Text]:
    generator = np.random.default_rng(0)
    vocabulary = np.arange(int(checkpoint.model.config.vocab_size), dtype=np.int64)
    vocabulary = vocabulary[vocabulary != checkpoint.pad_token_id]
    longest = checkpoint.max_tokens
    return {
        length: _Text(
            generator.choice(vocabulary, length),
            np.sort(generator.integers(0, checkpoint.type_vocab_size, length)),
        )
        for length in sorted({*LENGTHS, longest})
        if length <= longest
    }


def measure(graph: Path, checkpoint: Checkpoint, tolerance: float) -> dict[str, Parity]:
    """Compare both outputs over a grid of lengths, alone and in mixed batches.

    Raises:
        ExportError: a difference is above the tolerance, or a text's answer depends on its batch.
    """
    session = _session(graph)
    texts = _texts(checkpoint)
    lengths = list(texts)
    batches = [[length] for length in lengths]
    batches += [lengths, lengths[::-1], [lengths[0], *lengths[-2:], lengths[0], *lengths[:3]]]
    with quiet():
        try:
            checkpoint.model.set_attn_implementation("sdpa")
        except (ValueError, ImportError) as error:
            raise ExportError(f"PyTorch eager cannot be set up: {error}") from error
        expected = {length: _eager(checkpoint, text) for length, text in texts.items()}
    alone: dict[int, tuple[_Floats, _Floats]] = {}
    worst = dict.fromkeys(_OUTPUTS, (-1.0, ""))
    cases = 0
    for batch in batches:
        answers = _packed(session, checkpoint, [texts[length] for length in batch])
        for length, answer in zip(batch, answers, strict=True):
            where = "alone" if len(batch) == 1 else f"in a batch of lengths {batch}"
            case = f"{length} tokens, {where}"
            cases += 1
            first = alone.setdefault(length, answer)
            for output, got, same, want in zip(
                _OUTPUTS, answer, first, expected[length], strict=True
            ):
                difference = float(np.abs(got - want).max())
                if not np.isfinite(difference):
                    raise ExportError(f"{output} is not finite: {case}")
                if difference > worst[output][0]:
                    worst[output] = (difference, case)
                if not np.array_equal(got, same):
                    raise ExportError(f"{output} is not bit-identical to the text alone: {case}")
    for output, (difference, case) in worst.items():
        if difference > tolerance:
            raise ExportError(
                f"{output} differs from PyTorch by {difference:.3g}, more than the tolerance "
                f"{tolerance:.3g}; worst case: {case}"
            )
    return {
        output: Parity(max_abs_diff=difference, tolerance=tolerance, cases=cases, worst_case=case)
        for output, (difference, case) in worst.items()
    }
