"""The engine: one ONNX Runtime session over one bundle. Token sequences in, arrays out.

A session may be run by many threads at once; it holds no state between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from bertd import bundle
from numpy.typing import NDArray

from bertd_server.packing import Int64Array, PackedBatch, TokenSequence, pack

Float32Array = NDArray[np.float32]


class Engine:
    """Runs packed batches of one bundle."""

    def __init__(self, folder: Path, manifest: bundle.Manifest, *, threads: int) -> None:
        """Load the graph.

        Args:
            folder: a verified bundle.
            manifest: its manifest.
            threads: threads of one run, the calling thread included.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Within a run, threads spin from one operator to the next: to wake one from sleep costs
        # as much as a small operator. Between runs they sleep, and leave the core to the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            str(folder / bundle.GRAPH_NAME), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = frozenset(entry.name for entry in self._session.get_inputs())
        self._position_offset = manifest.position_offset
        self._unnumbered_token_id = manifest.unnumbered_token_id
        self._mask_token_id = manifest.mask_token_id
        self._rows = manifest.outputs

    @property
    def provider(self) -> str:
        """What runs the graph, in ONNX Runtime's name."""
        name: str = self._session.get_providers()[0]
        return name

    def answer(
        self, sequences: Sequence[TokenSequence], outputs: Sequence[str] | None = None
    ) -> list[dict[str, Float32Array]]:
        """Compute outputs of the graph for sequences, as one packed batch.

        Args:
            sequences: at least one, none empty.
            outputs: names from the manifest's ``outputs``; None for all.

        Returns:
            For each sequence, in the order given, its rows of each output: float32 `[rows, …]`
            with one row for the sequence, for each of its tokens, or for each of its mask tokens,
            as the manifest says.
        """
        names = list(self._rows if outputs is None else outputs)
        batch = pack(sequences, self._position_offset, self._unnumbered_token_id)
        arrays = self._run(batch, names)
        edges = {
            "sequences": np.arange(batch.sequences + 1),
            "tokens": batch.cu_seqlens,
            "masks": np.searchsorted(self._masks(batch), batch.cu_seqlens),
        }
        places = np.argsort(batch.arrangement.order)
        return [
            {
                name: array[slice(*edges[self._rows[name]][place : place + 2])]
                for name, array in zip(names, arrays, strict=True)
            }
            for place in places
        ]

    def embed(self, sequences: Sequence[TokenSequence]) -> Float32Array:
        """Compute one vector per sequence: float32 `[sequences, dimensions]`."""
        batch = pack(sequences, self._position_offset, self._unnumbered_token_id)
        (vectors,) = self._run(batch, [bundle.SENTENCE_EMBEDDING])
        restored = np.empty_like(vectors)
        restored[batch.arrangement.order] = vectors
        return restored

    def _masks(self, batch: PackedBatch) -> Int64Array:
        """Places of the mask tokens in the batch; none where the task has no masks."""
        if self._mask_token_id is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(batch.input_ids == self._mask_token_id)

    def _run(self, batch: PackedBatch, outputs: list[str]) -> list[Float32Array]:
        feeds = {**batch.feeds(), bundle.MASK_POSITIONS: self._masks(batch)}
        # A family without token types, or with rotary positions only, lacks the input.
        arrays: list[Float32Array] = self._session.run(
            outputs, {name: array for name, array in feeds.items() if name in self._inputs}
        )
        return arrays
