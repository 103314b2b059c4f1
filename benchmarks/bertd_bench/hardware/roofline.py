"""The roofline of a model: what memory and arithmetic allow its linear layers, by batch tokens.

::

    operations / bytes ── intensity ──> min(peak rate, intensity x bytes a second)

Bytes are those that must move once: the weights, and what each product reads and writes. Where
the weights fit into the last level of cache, memory is no bound and the engine may be above the
slope; the card says so. (Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions

from bertd_bench.hardware.kernels import Meter, TimedWork
from bertd_bench.hardware.products import LinearShape, Product
from bertd_bench.harness.texts import random_texts

TOKENS = (8, 32, 128, 512, 2048)
_LONGEST = 128  # tokens of a text in these batches: attention is then small beside the products


class RooflinePoint(TimedWork, frozen=True):
    """The real engine on one batch, all threads.

    Attributes:
        tokens: of the batch.
        lengths: of its texts.
        operations: of the linear layers; attention is left out.
        bytes_moved: at least.
        products_ms: the same products alone, by their own measured rates; None where those were
            not measured.
        measured: of the engine's runs, packing included.
    """

    tokens: int
    lengths: list[int]
    operations: float
    bytes_moved: float
    products_ms: float | None

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.bytes_moved

    @property
    def work(self) -> float:
        """Operations of the linear layers."""
        return self.operations

    @property
    def efficiency(self) -> float | None:
        """Time of the products alone over that of the engine: 1 if it did nothing else."""
        return None if self.products_ms is None else self.products_ms / self.measured.median_ms


class Roof(NamedTuple):
    """What the machine can do.

    Attributes:
        peak: 1e9 operations a second.
        bandwidth: 1e9 bytes a second.
    """

    peak: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """Intensity from which arithmetic is the bound."""
        return self.peak / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """1e9 operations a second."""
        return min(self.peak, intensity * self.bandwidth)


def bytes_moved(linears: Sequence[LinearShape], tokens: int, *, int8: bool) -> float:
    """Weights once, and rows of each product in and out; results are float32."""
    width = 1 if int8 else 4
    return float(
        sum(
            linear.weight_bytes(width)
            + linear.count * tokens * (width * linear.rows + 4 * linear.columns)
            for linear in linears
        )
    )


def lengths_of(tokens: int, longest: int) -> list[int]:
    """Texts of equal lengths that have so many tokens together, or nearly."""
    each = min(tokens, _LONGEST, longest)
    return [each] * max(1, tokens // each)


def measure(
    folder: Path, linears: Sequence[LinearShape], products: Sequence[Product], meter: Meter
) -> list[RooflinePoint]:
    """Time the engine on batches of more and more tokens, in turns.

    Args:
        folder: of the bundle.
        linears: its products.
        products: the same, timed alone; none where they could not be.
        meter: how.
    """
    manifest = bundle.read_manifest(folder)
    options = EngineOptions(threads=meter.threads, provider=meter.provider)
    engine = Engine(folder, manifest, options)
    rng = np.random.default_rng(0)
    batches = [lengths_of(tokens, manifest.max_tokens) for tokens in TOKENS]
    calls: list[tuple[str, int, Callable[[], object]]] = []
    for lengths in batches:
        texts = random_texts(rng, lengths, manifest)
        run = partial(engine.answer, texts, wide=engine.has_wide)
        calls.append((f"{sum(lengths)} tokens", meter.threads, run))
    return [
        RooflinePoint(
            tokens=sum(lengths),
            lengths=lengths,
            operations=sum(linear.operations(sum(lengths)) for linear in linears),
            bytes_moved=bytes_moved(linears, sum(lengths), int8=manifest.precision == "int8"),
            products_ms=alone_ms(products, linears, tokens, meter.threads),
            measured=each,
        )
        for tokens, lengths, each in zip(TOKENS, batches, meter.in_turns(calls), strict=True)
    ]


def alone_ms(
    products: Sequence[Product], linears: Sequence[LinearShape], tokens: int, threads: int
) -> float | None:
    """Milliseconds of all products of a model by themselves; None if one was not timed."""
    times = [
        each.measured.median_ms
        for each in products
        if each.threads == threads and each.tokens == tokens and each.linear in linears
    ]
    return sum(times) if len(times) == len(linears) else None
