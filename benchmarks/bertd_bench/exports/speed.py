"""How much faster a bundle is than its checkpoint in PyTorch eager, from token ids to the answer.

::

    lengths ─> ids of words ─┬─> eager, padded      ─┐
                             ├─> eager, one by one  ─┼─> the same answers? ─> timed in turns
                             └─> engine, one batch  ─┘
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
    TOKENIZER_NAME,
    Manifest,
    Precision,
    read_manifest,
)
from bertd.bundle.arrays import Float32Array
from bertd_export.checkpoint.tasks import loader
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from numpy.typing import NDArray
from pydantic import BaseModel
from tokenizers import Tokenizer

from bertd_bench.contestants.eager import BenchError
from bertd_bench.harness import rounds, texts
from bertd_bench.harness.system import Calls

OutputArrays = dict[str, Float32Array]


class LengthCase(NamedTuple):
    """Lengths of one batch, and whether eager takes its texts one by one instead of padding."""

    lengths: tuple[int, ...]
    one_by_one: bool = False


_MIXED = f"{len(texts.MIXED_LENGTHS)} mixed"
CASES: dict[str, LengthCase] = {
    **{f"{length} tokens": LengthCase((length,)) for length in (8, 32, 128, 384)},
    _MIXED: LengthCase(texts.MIXED_LENGTHS),
    f"{_MIXED}, one by one": LengthCase(texts.MIXED_LENGTHS, one_by_one=True),
}

# How far an answer may be from eager's, as a part of its length, before a time means nothing.
# fp32 differs by rounding, fp16 by rounding to 11 bits in each of a dozen layers. In int8, the
# export's gate is a mean cosine of 0.99, which is 0.14 here; each text counts by itself, shuffled
# words are less like text than those of the gate, and logits of random weights hardly differ from
# each other. An unrelated answer of the same length is 1.4 away.
TOLERANCE: dict[str, float] = {"fp32": 1e-4, "fp16": 0.02, "int8": 1.0}

STEADY = 0.25  # the most that the quartiles of undisturbed calls lie apart, of the median

_EAGER_NAMES = {TOKEN_EMBEDDINGS: "last_hidden_state", POOLER_OUTPUT: "pooler_output"}


class Quartiles(BaseModel, frozen=True):
    """Milliseconds of so many calls: half of them lie between the outer two."""

    first: float
    median: float
    third: float
    calls: int

    @property
    def spread(self) -> float:
        """The distance between the outer two, as a part of the median."""
        return (self.third - self.first) / self.median


def quartiles(samples_ns: list[int]) -> Quartiles:
    """The quartiles, interpolated linearly between samples.

    Raises:
        ValueError: there are no samples.
    """
    if not samples_ns:
        raise ValueError("there are no samples to take quartiles of")
    first, median, third = np.percentile(np.array(samples_ns, np.float64) / 1e6, [25, 50, 75])
    return Quartiles(
        first=float(first), median=float(median), third=float(third), calls=len(samples_ns)
    )


class Speed(BaseModel, frozen=True):
    """One case: both contestants' times, and the largest difference of an answer, relative."""

    eager: Quartiles
    engine: Quartiles
    difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast the engine was, by medians."""
        return self.eager.median / self.engine.median

    @property
    def disturbed(self) -> bool:
        """Whether a contestant's calls spread so much that something else must have run."""
        return max(self.eager.spread, self.engine.spread) > STEADY


class Words(NamedTuple):
    """Token ids of everyday words, and of what the tokenizer puts around a text."""

    opening: list[int]
    words: list[int]
    closing: list[int]

    @classmethod
    def of(cls, bundle: Path) -> Words:
        """What a bundle's tokenizer makes of `texts.WORDS`."""
        tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER_NAME))
        tokenizer.no_truncation()
        encoding = tokenizer.encode(" ".join(texts.WORDS))
        inner = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        ids, first, end = encoding.ids, inner[0], inner[-1] + 1
        return cls(ids[:first], ids[first:end], ids[end:])


class IdBatch(NamedTuple):
    """The same ids for every contestant, text by text."""

    ids: list[NDArray[np.int64]]

    @classmethod
    def draw(cls, lengths: Sequence[int], manifest: Manifest, words: Words) -> IdBatch:
        """Texts of shuffled words, and one mask in each where the task needs it.

        Words, because int8 is calibrated on text: ids from anywhere in the vocabulary are no
        text, and say little about it.
        """
        rng = np.random.default_rng(0)
        around = len(words.opening) + len(words.closing)
        ids = []
        for length in lengths:
            chosen = rng.choice(words.words, length - around)
            row = np.array([*words.opening, *chosen, *words.closing], np.int64)
            if manifest.mask_token_id is not None:
                row[length // 2] = manifest.mask_token_id
            ids.append(row)
        return cls(ids)

    @property
    def sequences(self) -> list[TokenSequence]:
        """Inputs of the engine."""
        return [TokenSequence(row, np.zeros_like(row)) for row in self.ids]

    def padded(self, pad: int) -> dict[str, torch.Tensor]:
        """Inputs of the stock model: `[texts, longest]`."""
        shape = (len(self.ids), max(map(len, self.ids)))
        rows, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
        for number, text in enumerate(self.ids):
            rows[number, : len(text)] = text
            mask[number, : len(text)] = 1
        return {"input_ids": torch.from_numpy(rows), "attention_mask": torch.from_numpy(mask)}


def _run_eager(model: Any, calls: Sequence[dict[str, torch.Tensor]]) -> list[Any]:
    """The stock model's outputs, call by call."""
    with torch.inference_mode():
        return [model(**inputs) for inputs in calls]


def _eager_of_texts(outputs: list[Any], batch: IdBatch, manifest: Manifest) -> list[OutputArrays]:
    """What eager says of each text, without the rows of padding."""
    answers: list[OutputArrays] = [{} for _ in batch.ids]
    for name in _compared(manifest):
        kind = manifest.outputs[name]
        rows = [row for output in outputs for row in output[_EAGER_NAMES.get(name, name)]]
        for answer, ids, row in zip(answers, batch.ids, rows, strict=True):
            values = row.numpy()[None] if kind == "sequences" else row.numpy()[: len(ids)]
            answer[name] = values[ids == manifest.mask_token_id] if kind == "masks" else values
    return answers


def _compared(manifest: Manifest) -> list[str]:
    """All outputs but the pooled vector, which the export itself has compared."""
    return [name for name in manifest.outputs if name != SENTENCE_EMBEDDING]


def relative_difference(got: list[OutputArrays], want: list[OutputArrays]) -> float:
    """The largest distance of an output of a text, as a part of the length that it should have.

    A length below 1 counts as 1: a lone logit near 0 has no relative error worth the name.

    Raises:
        BenchError: a shape differs.
    """
    worst = 0.0
    for ours, theirs in zip(got, want, strict=True):
        for name, expected in theirs.items():
            if ours[name].shape != expected.shape:
                raise BenchError(f"{name}: shape {ours[name].shape}, eager {expected.shape}")
            length = max(1.0, float(np.linalg.norm(expected)))
            distance = np.linalg.norm(ours[name] - expected) / length
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
    folder: Path, bundle: Path, *, threads: int, turns: int, cases: Sequence[str]
) -> dict[str, Speed]:
    """Compare, then time, each case that the model can read.

    Args:
        folder: the checkpoint.
        bundle: its bundle.
        threads: for both; PyTorch's are set by the caller.
        turns: of each contestant.
        cases: names in `CASES`.

    Raises:
        BenchError: the answers differ.
    """
    manifest = read_manifest(bundle)
    model = loader(manifest.task).from_pretrained(folder, dtype=torch.float32).eval()
    pad = model.config.pad_token_id or 0
    engine = Engine(bundle, manifest, EngineOptions(threads))
    words = Words.of(bundle)
    outputs = list(manifest.outputs)[:1] if manifest.dimensions else list(manifest.outputs)
    schedule = rounds.Schedule(turns, repeats=20, steady_seconds=1.0, turn_seconds=0.5)
    found: dict[str, Speed] = {}
    for name in cases:
        lengths, one_by_one = CASES[name]
        if max(lengths) > manifest.max_tokens:
            continue
        batch = IdBatch.draw(lengths, manifest, words)
        apart = [IdBatch([row]) for row in batch.ids] if one_by_one else [batch]
        eager = partial(_run_eager, model, [each.padded(pad) for each in apart])
        run = partial(engine.answer, batch.sequences, wide=engine.has_wide)
        theirs = _eager_of_texts(eager(), batch, manifest)
        difference = relative_difference(run(_compared(manifest)), theirs)
        check(difference, manifest.precision, name)
        calls: dict[str, Any] = {"eager": eager, "engine": partial(run, outputs)}
        systems = Calls.each(calls, threads)
        seen = rounds.run(systems, 0, schedule, random.Random(0))  # noqa: S311 - no secret
        times = {each.name: quartiles(each.samples_ns) for each in seen}
        found[name] = Speed(difference=difference, **times)
    return found
