"""How much faster a bundle is than its checkpoint in PyTorch eager, from token ids to the answer.

::

    lengths ─> random ids ─> eager, padded       ─┐
                          ─> eager, one by one   ─┼─> the same answers? ─> timed in turns
                          ─> engine, one batch   ─┘
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bertd.bundle import (
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Manifest,
    Precision,
    read_manifest,
)
from bertd_export.tasks import loader
from bertd_server.engine import Engine, Float32Array
from bertd_server.packing import TokenSequence
from pydantic import BaseModel

from bertd_bench import texts, timing
from bertd_bench.contestants import BenchError

Answer = dict[str, Float32Array]


class Case(NamedTuple):
    """Lengths of one batch, and whether eager takes its texts one by one instead of padding."""

    lengths: tuple[int, ...]
    one_by_one: bool = False


_MIXED = f"{len(texts.MIXED_LENGTHS)} mixed"
CASES: dict[str, Case] = {
    **{f"{length} tokens": Case((length,)) for length in (8, 32, 128, 384)},
    _MIXED: Case(texts.MIXED_LENGTHS),
    f"{_MIXED}, one by one": Case(texts.MIXED_LENGTHS, one_by_one=True),
}

# How far, as a part of its length, an answer may be from eager's before a time means nothing.
# fp32 differs by rounding. In int8, the export's gate is a mean cosine of 0.99, which is 0.14
# here; these ids are random, unlike the texts of the gate, and each text counts by itself.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.5}

_ENGINE = "engine"
_FIRST_WORD = 5  # ids below are special tokens
_TURN_SECONDS = 0.5
_EAGER_NAMES = {TOKEN_EMBEDDINGS: "last_hidden_state", POOLER_OUTPUT: "pooler_output"}


class Speed(BaseModel, frozen=True):
    """One case: both contestants' times, and the largest difference of an answer, relative."""

    eager: timing.Quartiles
    engine: timing.Quartiles
    difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast the engine was, by medians."""
        return self.eager.median / self.engine.median


class Batch(NamedTuple):
    """The same random ids for every contestant."""

    ids: list[Any]
    sequences: list[TokenSequence]

    @classmethod
    def draw(cls, lengths: Sequence[int], manifest: Manifest) -> Batch:
        """Ids of words, and one mask in each text where the task needs it."""
        rng = np.random.default_rng(0)
        ids = []
        for length in lengths:
            row = rng.integers(_FIRST_WORD, manifest.vocab_size, length)
            if manifest.mask_token_id is not None:
                row[length // 2] = manifest.mask_token_id
            ids.append(row)
        return cls(ids, [TokenSequence(row, np.zeros_like(row)) for row in ids])

    def padded(self, pad: int) -> dict[str, torch.Tensor]:
        """Inputs of the stock model: `[texts, longest]`."""
        shape = (len(self.ids), max(map(len, self.ids)))
        rows, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
        for number, text in enumerate(self.ids):
            rows[number, : len(text)] = text
            mask[number, : len(text)] = 1
        return {"input_ids": torch.from_numpy(rows), "attention_mask": torch.from_numpy(mask)}

    def alone(self) -> list[dict[str, torch.Tensor]]:
        """Inputs of the stock model, one call per text."""
        return [Batch([row], []).padded(0) for row in self.ids]


def run_eager(model: Any, calls: Sequence[dict[str, torch.Tensor]]) -> list[Any]:
    """The stock model's outputs, call by call."""
    with torch.inference_mode():
        return [model(**inputs) for inputs in calls]


def run_engine(engine: Engine, batch: Batch, outputs: Sequence[str]) -> Answer:
    """Packing and one run."""
    return engine.run(engine.pack(batch.sequences), outputs)


def of_texts(answer: Answer, batch: Batch, manifest: Manifest) -> list[Answer]:
    """The engine's answer, text by text."""
    masks = [int((row == manifest.mask_token_id).sum()) for row in batch.ids]
    sizes = {
        "sequences": [1] * len(batch.ids),
        "tokens": [len(row) for row in batch.ids],
        "masks": masks,
    }
    parts = {
        name: np.split(rows, np.cumsum(sizes[manifest.outputs[name]])[:-1])
        for name, rows in answer.items()
    }
    return [{name: part[i] for name, part in parts.items()} for i in range(len(batch.ids))]


def _eager_of_texts(outputs: list[Any], batch: Batch, manifest: Manifest) -> list[Answer]:
    """What eager says of each text, without the rows of padding."""
    answers: list[Answer] = [{} for _ in batch.ids]
    for name in _compared(manifest):
        kind = manifest.outputs[name]
        rows = [row for output in outputs for row in output[_EAGER_NAMES.get(name, name)]]
        for answer, ids, row in zip(answers, batch.ids, rows, strict=True):
            values = row.numpy()
            if kind == "sequences":
                answer[name] = values[None]
            else:
                answer[name] = values[: len(ids)]
            if kind == "masks":
                answer[name] = answer[name][ids == manifest.mask_token_id]
    return answers


def _compared(manifest: Manifest) -> list[str]:
    """All outputs but the pooled vector, which the export itself has compared."""
    return [name for name in manifest.outputs if name != SENTENCE_EMBEDDING]


def relative_difference(got: list[Answer], want: list[Answer]) -> float:
    """The largest distance of an output of a text, as a part of what it should be.

    Raises:
        BenchError: a shape differs.
    """
    worst = 0.0
    for ours, theirs in zip(got, want, strict=True):
        for name, expected in theirs.items():
            if ours[name].shape != expected.shape:
                raise BenchError(f"{name}: shape {ours[name].shape}, eager {expected.shape}")
            distance = np.linalg.norm(ours[name] - expected) / np.linalg.norm(expected)
            worst = max(worst, float(distance if np.isfinite(distance) else np.inf))
    return worst


def check(difference: float, precision: Precision, what: str) -> None:
    """Refuse to time what computes something else.

    Raises:
        BenchError: the difference is above the precision's tolerance.
    """
    limit = TOLERANCE[precision]
    if difference > limit:
        raise BenchError(
            f"{what}: the engine's answer differs from eager's by {difference:.1e} of its length, "
            f"more than {limit:g} for {precision}, so its time would mean nothing"
        )


def measure_speed(
    folder: Path, bundle: Path, *, threads: int, rounds: int, cases: Sequence[str]
) -> dict[str, Speed]:
    """Compare, then time, each case that the model can read.

    Args:
        folder: the checkpoint.
        bundle: its bundle.
        threads: for both; PyTorch's are set by the caller.
        rounds: turns of each contestant.
        cases: names in `CASES`.

    Raises:
        BenchError: the answers differ.
    """
    manifest = read_manifest(bundle)
    model = loader(manifest.task).from_pretrained(folder, dtype=torch.float32).eval()
    engine = Engine(bundle, manifest, threads=threads)
    outputs = list(manifest.outputs)[:1] if manifest.dimensions else list(manifest.outputs)
    readable = [name for name in cases if max(CASES[name].lengths) <= manifest.max_tokens]
    found: dict[str, Speed] = {}
    for lengths in dict.fromkeys(CASES[name].lengths for name in readable):
        batch = Batch.draw(lengths, manifest)
        answer = of_texts(run_engine(engine, batch, _compared(manifest)), batch, manifest)
        names = [name for name in readable if CASES[name].lengths == lengths]
        calls: dict[str, Any] = {_ENGINE: partial(run_engine, engine, batch, outputs)}
        differences = {}
        for name in names:
            padded = [batch.padded(model.config.pad_token_id or 0)]
            eager = partial(run_eager, model, batch.alone() if CASES[name].one_by_one else padded)
            theirs = _eager_of_texts(eager(), batch, manifest)
            differences[name] = relative_difference(answer, theirs)
            check(differences[name], manifest.precision, name)
            calls[name] = eager
        schedule = timing.Schedule(rounds, repeats=timing.repeats_within(_TURN_SECONDS, calls))
        samples = timing.measure(calls, schedule, random.Random(0))  # noqa: S311 - no secret
        quartiles = {who: timing.quartiles(values) for who, values in samples.items()}
        for name in names:
            found[name] = Speed(
                eager=quartiles[name], engine=quartiles[_ENGINE], difference=differences[name]
            )
    return {name: found[name] for name in readable}
