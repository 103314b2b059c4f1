"""PyTorch eager where bertd's engine would be: the same server around another model.

::

    sequences ──by length──> groups ──pad──> transformers' model ──mean, normalise──> rows

A narrow run has one thread and a wide one all, as with bertd's engine, and both are measured at
the start in the same way, so that the scheduler chooses among them as it does for its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from bertd import bundle
from bertd.bundle.arrays import Float32Array
from bertd_server.engine.engine import NO_LIMIT, Engine, EngineOptions
from bertd_server.engine.packing import TokenSequence
from bertd_server.models import calibration
from bertd_server.models.calibration import Calibration
from bertd_server.models.startup import StartOptions, warm_up
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from bertd_bench.contestants.handling import groups


class EagerEngine:
    """A stock model in evaluation mode; see :class:`bertd_server.models.model.Ready`.

    Args:
        checkpoint: its folder; its embeddings are means of the last hidden state, normalised.
        manifest: of the bundle that was exported from it.
        options: threads and lanes.
    """

    max_batch_tokens = NO_LIMIT
    provider = "PyTorch eager"
    outputs = (bundle.SENTENCE_EMBEDDING,)

    def __init__(self, checkpoint: Path, manifest: bundle.Manifest, options: EngineOptions) -> None:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.manifest, self.options = manifest, options
        self.lanes = options.lanes or options.threads
        self.has_wide = options.threads > 1
        self._model: Any = AutoModel.from_pretrained(checkpoint).eval()
        self._typed = getattr(self._model.config, "type_vocab_size", 0) > 0
        self._pad = self._model.config.pad_token_id or 0
        self._local = threading.local()

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,  # noqa: ARG002 - there is one
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        """One vector a sequence: float32 `[1, dimensions]`."""
        self._use(self.options.threads if wide else 1)
        rows: list[Float32Array] = [np.empty(0, np.float32)] * len(sequences)
        for group in groups([len(sequence) for sequence in sequences]):
            vectors = self._embed([sequences[place] for place in group])
            for number, place in enumerate(group):
                rows[place] = vectors[number : number + 1]
        return [{bundle.SENTENCE_EMBEDDING: row} for row in rows]

    def _use(self, threads: int) -> None:
        """PyTorch keeps the number of threads for each thread that calls it."""
        if getattr(self._local, "threads", 0) != threads:
            torch.set_num_threads(threads)
            self._local.threads = threads

    def _embed(self, sequences: Sequence[TokenSequence]) -> Float32Array:
        shape = len(sequences), max(len(sequence) for sequence in sequences)
        ids, types, mask = np.full(shape, self._pad), np.zeros(shape, int), np.zeros(shape, int)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence.input_ids
            types[row, : len(sequence)] = sequence.token_type_ids
            mask[row, : len(sequence)] = 1
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._typed:
            inputs["token_type_ids"] = torch.from_numpy(types)
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
            weights = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            means = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
            vectors: Float32Array = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors


def start(
    checkpoint: Path,
    manifest: bundle.Manifest,
    options: EngineOptions,
    starting: StartOptions,
) -> tuple[EagerEngine, Calibration]:
    """Load it, warm it up and measure it, as :mod:`bertd_server.models.startup` does ours."""
    engine = EagerEngine(checkpoint, manifest, options)
    alike = cast("Engine", engine)  # all that is asked of one here
    warm_up(alike, starting.warmup_seconds)
    return engine, calibration.calibrate(alike, seconds=starting.calibration_seconds)
