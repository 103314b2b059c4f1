"""The engine: a bundle on ONNX Runtime. Token sequences in, arrays out.

::

    sequences ──pack──> feeds ──> narrow session, one thread a run: N lanes call it at once
                              └─> wide session, all threads: one call at a time, for a lone text
                                  rows of each sequence <──unpack── outputs

Both sessions hold the same weights, once (:mod:`.prepacking`), give the same bits, and
keep no state between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bertd import bundle
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd.bundle.kernels import KernelChoice, NativeKernels
from bertd.bundle.prompts import pooled

from bertd_server.engine import native, sessions
from bertd_server.engine.packing import PackedBatch, TokenSequence, pack
from bertd_server.engine.prepacking import prepacked
from bertd_server.engine.sessions import Interrupt, SessionOptions
from bertd_server.system import cpu
from bertd_server.system.logs import get_logger
from bertd_server.system.setting_types import Profile, Provider

GraphOutputs = Mapping[str, Float32Array]
"""Arrays by the names of the graph's outputs."""

_NOWHERE: Int64Array = np.empty(0, np.int64)
# Of tokens times entries of the vocabulary that one run makes to pool them: 32 MiB, and twice that
# meanwhile. Runs of more take three times the CPU, as the cache holds less of them. Where that
# would be very few tokens, as with 250,000 entries, it is so many at least.
MOST_LOGITS = 2**23
LEAST_POOLED = 128
KEPT_LOGITS = 2**24  # of a single text: what took more is given back
NO_LIMIT = 2**62  # tokens: more than any batch has

log = get_logger("bertd")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a bundle is run.

    Attributes:
        threads: of a wide run; with 1 there is no wide session.
        lanes: narrow runs that may go on at once, on one thread each; 0 for one per thread.
        niceness: of threads that a session has, above that of the process.
        provider: what computes; other than the CPU, all runs go to one session.
        profile: see :class:`bertd_server.engine.sessions.SessionOptions`.
        kernels: native ones, stock operators, or native ones where they are.
        cache: folder that keeps prepacked weights for the next start; None makes them anew.
    """

    threads: int = 1
    lanes: int = 0
    provider: Provider = "cpu"
    niceness: int = 0
    profile: Profile = "latency"
    kernels: KernelChoice = "auto"
    cache: Path | None = None


class Engine:
    """Runs packed batches of one bundle. Any number of threads may call it at once.

    Attributes:
        manifest: of the bundle.
        options: how it runs.
        lanes: narrow runs that may go on at once.
        kernels: native ones that take the place of the graph's functions; None: there are none.
        has_wide: whether there is a session that uses all threads for one run.
        outputs: names that :meth:`answer` computes unless told otherwise.
        max_batch_tokens: the largest batch that the memory limit allows.
        request_bytes: what the memory limit leaves to requests in flight; 0 without one.
    """

    def __init__(
        self, folder: Path, manifest: bundle.Manifest, options: EngineOptions | None = None
    ) -> None:
        """Load the graph.

        Args:
            folder: a verified bundle.
            manifest: its manifest.
            options: how to run it.

        Raises:
            CannotServeError: the provider is not there.
            MisusedError: native kernels are asked for, and are not there.
        """
        self.manifest = manifest
        self.options = options or EngineOptions()
        self.lanes = self.options.lanes or self.options.threads
        self.has_wide = self.options.provider == "cpu" and self.options.threads > 1
        self.kernels: NativeKernels | None = native.chosen(
            self.options.kernels, self.options.provider, folder / bundle.GRAPH_NAME
        )
        self.max_batch_tokens = NO_LIMIT
        self.request_bytes = 0
        self._pack = partial(
            pack,
            position_offset=manifest.position_offset,
            unnumbered_token_id=manifest.unnumbered_token_id,
        )
        with ThreadPoolExecutor(1) as opener:  # threads of a session are as nice as who opens it
            self._narrow, self._wide = opener.submit(self._open_nicely, folder).result()
        sessions.check_names(self._narrow, folder, manifest)
        # A family without token types, or with rotary positions only, lacks their input.
        self._unread = sessions.unread(self._narrow)
        self._rows = {**manifest.outputs, bundle.SPARSE_EMBEDDING: "sequences"}
        embedding = bundle.SENTENCE_EMBEDDING
        self.outputs = (embedding,) if embedding in self._rows else tuple(manifest.outputs)

    def _open_nicely(self, folder: Path) -> tuple[Any, Any]:
        cpu.step_back(self.options.niceness)
        return self._open(folder)

    def _open(self, folder: Path) -> tuple[Any, Any]:
        """The narrow and the wide session; one and the same where one is enough."""
        common = SessionOptions(self.options.provider, self.options.profile, self.kernels)
        threads = self.options.threads if self.has_wide else 1
        graph = folder / bundle.GRAPH_NAME
        if not self.has_wide:
            session = sessions.open_session(graph, threads, common)
            return session, session
        try:
            with prepacked(folder, self.manifest, self.options.cache, self, self.kernels) as packed:
                return (
                    sessions.open_session(packed, 1, common),
                    sessions.open_session(packed, threads, common),
                )
        except OSError as error:
            log.warning(
                "weights in memory twice",
                model=self.manifest.name,
                reason=str(error),
                remedy="name a folder that the server may write to with --cache-folder, "
                "or give it --threads 1",
            )
        return (
            sessions.open_session(graph, 1, common),
            sessions.open_session(graph, threads, common),
        )

    @property
    def provider(self) -> str:
        """What runs the graph, in ONNX Runtime's name."""
        name: str = self._narrow.get_providers()[0]
        return name

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        """Compute outputs of the graph for sequences, as one packed batch.

        Args:
            sequences: at least one, none empty.
            outputs: names from the manifest's ``outputs``; None for :attr:`outputs`. Of fill-mask
                ``sparse_embedding`` too, which costs logits at all tokens of the whole batch.
            wide: run on all threads, where there is a session for it.

        Returns:
            For each sequence, in the order given, its rows of each output: float32 `[rows, …]`
            with one row for the sequence, for each of its tokens, or for each of its mask tokens,
            as the manifest says. They are the batch's arrays, or views of them.
        """
        names = list(self.outputs if outputs is None else outputs)
        if (
            len(sequences) > 1
            and bundle.SPARSE_EMBEDDING in names
            and self._is_beyond_a_run(sequences)
        ):
            half = len(sequences) // 2
            parts = (sequences[:half], sequences[half:])
            return [one for part in parts for one in self.answer(part, names, wide=wide)]
        batch = self._pack(sequences)
        masks = self._masks(batch)
        if bundle.SPARSE_EMBEDDING in names:
            arrays = self._pooled(batch, names, masks, wide=wide)
        else:
            arrays = dict(zip(names, self._run(batch, names, masks, wide=wide), strict=True))
        if len(sequences) == 1:  # every row is of the one
            return [arrays]
        edges = {
            "sequences": range(len(sequences) + 1),
            "tokens": batch.cu_seqlens.tolist(),
            "masks": masks.searchsorted(batch.cu_seqlens).tolist(),
        }
        columns = [(name, arrays[name], edges[self._rows[name]]) for name in names]
        return [
            {name: rows[edge[place] : edge[place + 1]] for name, rows, edge in columns}
            for place in batch.arrangement.order.argsort().tolist()
        ]

    def rehearse(
        self,
        sequences: Sequence[TokenSequence],
        *,
        wide: bool = False,
        interrupt: Interrupt | None = None,
    ) -> None:
        """Run a batch whose answers nobody wants.

        Args:
            sequences: at least one, none empty.
            wide: run on all threads, where there is a session for it.
            interrupt: may end the run before it is done; it then raises what ONNX Runtime does.
        """
        batch = self._pack(sequences)
        options = interrupt.options if interrupt is not None else None
        self._run(batch, list(self.outputs), self._masks(batch), wide=wide, options=options)

    def embed(self, sequences: Sequence[TokenSequence], *, wide: bool = False) -> Float32Array:
        """Compute one vector per sequence: float32 `[sequences, dimensions]`."""
        batch = self._pack(sequences)
        (vectors,) = self._run(batch, [bundle.SENTENCE_EMBEDDING], _NOWHERE, wide=wide)
        if len(sequences) == 1:
            return vectors
        restored = np.empty_like(vectors)
        restored[batch.arrangement.order] = vectors
        return restored

    def _is_beyond_a_run(self, sequences: Sequence[TokenSequence]) -> bool:
        """Whether the logits at all tokens are too many for one run."""
        most = max(MOST_LOGITS, LEAST_POOLED * self.manifest.vocab_size)
        return sum(map(len, sequences)) * self.manifest.vocab_size > most

    def _masks(self, batch: PackedBatch) -> Int64Array:
        """Places of mask tokens, where the graph asks for them."""
        if self.manifest.mask_token_id is None:
            return _NOWHERE
        return np.flatnonzero(batch.input_ids == self.manifest.mask_token_id)

    def _pooled(
        self, batch: PackedBatch, names: list[str], masks: Int64Array, *, wide: bool
    ) -> dict[str, Float32Array]:
        """The sparse embedding, and the logits at the masks if they are among the names.

        Every token is projected as if it were a mask, which the plan of memory allows for. Pooled
        here, on the lane: what leaves has a row for each text.
        """
        (logits,) = self._run(batch, [bundle.LOGITS], np.arange(batch.tokens), wide=wide)
        weights = heads.sparse_weights(logits, batch.cu_seqlens, self.manifest.sparse)
        found = {bundle.SPARSE_EMBEDDING: weights}
        if bundle.LOGITS in names:
            found[bundle.LOGITS] = logits[masks]
        if logits.size > KEPT_LOGITS:
            del logits
            self._give_back(batch.input_ids[:1])
        return found

    def _give_back(self, token: Int64Array) -> None:
        """Let the arena give back what it does not use, after a run of one token."""
        if self.options.provider == "cpu":
            batch = self._pack([TokenSequence(token, np.zeros_like(token))])
            self._run(batch, [], _NOWHERE, wide=False, options=sessions.giving_back())

    def _run(
        self,
        batch: PackedBatch,
        outputs: list[str],
        masks: Int64Array,
        *,
        wide: bool,
        options: Any = None,
    ) -> list[Float32Array]:
        feeds = batch.feeds()
        feeds[bundle.MASK_POSITIONS] = masks
        if not self.manifest.include_prompt:
            feeds[bundle.POOLED_TOKENS], feeds[bundle.POOLED_SEQLENS] = pooled(
                batch.cu_seqlens, batch.prompt_tokens
            )
        for name in self._unread:
            feeds.pop(name, None)
        session = self._wide if wide else self._narrow
        arrays: list[Float32Array] = session.run(outputs, feeds, options)
        return arrays
