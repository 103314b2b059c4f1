"""The engine: one ONNX Runtime session over one bundle. Packed arrays in, arrays out.

A session may be run by many threads at once; it holds no state between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from bertd import bundle
from numpy.typing import NDArray

from bertd_server.packing import PackedBatch, TokenSequence, pack

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

    @property
    def provider(self) -> str:
        """What runs the graph, in ONNX Runtime's name."""
        name: str = self._session.get_providers()[0]
        return name

    def pack(self, sequences: list[TokenSequence]) -> PackedBatch:
        """Lay sequences end to end, with the model's numbering of positions."""
        return pack(sequences, self._position_offset, self._unnumbered_token_id)

    def run(self, batch: PackedBatch, outputs: Sequence[str]) -> dict[str, Float32Array]:
        """Compute outputs of the graph, by name.

        The manifest's ``outputs`` names them and says what the first axis of each counts:
        sequences, tokens, or the mask tokens of the batch, in the order in which they lie.
        """
        # A family without token types, or with rotary positions only, lacks the input.
        feeds = {name: array for name, array in batch.feeds().items() if name in self._inputs}
        if self._mask_token_id is not None:
            feeds[bundle.MASK_POSITIONS] = np.flatnonzero(batch.input_ids == self._mask_token_id)
        arrays = self._session.run(list(outputs), feeds)
        return dict(zip(outputs, arrays, strict=True))

    def embed(self, batch: PackedBatch) -> Float32Array:
        """Compute one vector per sequence: float32 `[sequences, dimensions]`."""
        return self.run(batch, [bundle.SENTENCE_EMBEDDING])[bundle.SENTENCE_EMBEDDING]
