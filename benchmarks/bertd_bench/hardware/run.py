"""Measures a card, part by part; see the package's picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd_server.engine import providers
from bertd_server.system import cpu
from bertd_server.system.setting_types import Provider

from bertd_bench.hardware import cores, memory, products, roofline, ways
from bertd_bench.hardware.card import Card, ModelCard
from bertd_bench.hardware.kernels import Meter
from bertd_bench.hardware.products import LinearShape, Product, ProductPrecision
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Distance, NoiseWatch
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.texts import MIXED_LENGTHS


@dataclass(frozen=True, slots=True)
class HardwareOptions:
    """What is measured, and how often.

    Attributes:
        folders: bundles, of one model in several precisions or of several.
        provider: what computes.
        price_per_hour: of the machine.
        rounds: turns of everything.
        turn_seconds: of each layout's turns; products and engine take at most as long.
        memory_bytes: to go through; None for what no cache holds.
        tries: of a round that others disturb.
        command: that was given.
    """

    folders: Sequence[Path]
    provider: Provider = "cpu"
    price_per_hour: float | None = None
    rounds: int = 7
    turn_seconds: float = 0.4
    memory_bytes: int | None = None
    tries: int = 1
    command: str = "bertd bench hardware"


def measure(options: HardwareOptions, progress: Callable[[str], None]) -> Card:
    """Measure everything.

    Raises:
        CannotServeError: the provider is not there; said before anything is measured.
        bundle.BundleError: a folder holds none, or one without products.
    """
    providers.chain(options.provider)
    shapes = {folder: products.shapes_of(folder) for folder in options.folders}
    threads = cpu.usable_threads()
    here = machine.describe(threads)
    affinity = here.affinity or list(range(threads))
    schedule = Schedule(
        options.rounds,
        repeats=5,
        pause_seconds=0.005,
        steady_seconds=options.turn_seconds,
        turn_seconds=options.turn_seconds / 4,
    )
    rates: dict[str, Product] = {}
    cards: list[ModelCard] = []
    skipped: dict[str, str] = {}
    with (
        Distance(affinity) as distance,
        NoiseWatch(affinity, distance=distance, tries=options.tries) as watch,
    ):
        meter = Meter(options.provider, threads, schedule, watch)
        progress("cores")
        seen = cores.measure(affinity, threads, options.rounds, watch.calibrate)
        progress("memory")
        size = options.memory_bytes or memory.size(seen.cache_bytes)
        bandwidth = memory.measure(size, meter)
        for folder, linears in shapes.items():
            manifest = bundle.read_manifest(folder)
            title = f"{manifest.name}, {manifest.precision}"
            progress(f"{title}: products")
            try:
                own = _products(manifest, linears, meter)
            except products.CannotMultiplyError as error:
                own = []
                skipped[f"products of {title}"] = str(error)
            rates = {each.measured.name: each for each in own} | rates
            progress(f"{title}: engine by tokens")
            points = roofline.measure(folder, linears, own, meter)
            progress(f"{title}: lanes, threads and texts")
            weights = folder / bundle.WEIGHTS_NAME
            cards.append(
                ModelCard(
                    name=manifest.name,
                    precision=manifest.precision,
                    linears=linears,
                    file_bytes=weights.stat().st_size if weights.exists() else 0,
                    points=points,
                    ways=ways.measure(folder, MIXED_LENGTHS, options.turn_seconds, meter),
                )
            )
        return Card(
            command=options.command,
            provider=options.provider,
            machine=here,
            noise=watch.noise(),
            cores=seen,
            bandwidth=bandwidth,
            products=list(rates.values()),
            models=cards,
            mix=list(MIXED_LENGTHS),
            price_per_hour=options.price_per_hour,
            skipped=skipped,
        )


def _products(
    manifest: bundle.Manifest, linears: Sequence[LinearShape], meter: Meter
) -> list[Product]:
    """Rates of a bundle's products.

    Raises:
        CannotMultiplyError: they cannot be had.
    """
    if manifest.precision == "fp16" and meter.provider == "cpu":
        raise products.CannotMultiplyError(
            "fp16 weights are computed in float32 on a CPU: see the fp32 bundle's"
        )
    kind: ProductPrecision = "int8" if manifest.precision == "int8" else "fp32"
    return products.measure(kind, linears, roofline.TOKENS, meter)
