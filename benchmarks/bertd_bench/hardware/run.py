"""Measures a card, part by part; see the package's picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd_server.engine import providers
from bertd_server.system import cpu
from bertd_server.system.values import Provider

from bertd_bench.hardware import cores, energy, memory, products, roofline, ways
from bertd_bench.hardware.card import Card, ModelCard
from bertd_bench.hardware.products import LinearShape, Product
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Distance, Watch
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.texts import MIXED_LENGTHS

_ENERGY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HardwareOptions:
    """What is measured, and how often.

    Attributes:
        folders: bundles, of one model in several precisions or of several.
        provider: what computes.
        price_per_hour: of the machine.
        rounds: turns of everything.
        turn_seconds: of each arrangement's turns; products and engine take at most as long.
        memory_bytes: to go through; None for what no cache holds.
        command: that was given.
    """

    folders: Sequence[Path]
    provider: Provider = "cpu"
    price_per_hour: float | None = None
    rounds: int = 7
    turn_seconds: float = 0.4
    memory_bytes: int | None = None
    command: str = "bertd bench hardware"


def thread_counts(threads: int) -> list[int]:
    """One, half of all where that is more, and all."""
    return sorted({1, max(1, threads // 2), threads})


def measure(options: HardwareOptions, progress: Callable[[str], None]) -> Card:
    """Measure everything.

    Raises:
        CannotServeError: the provider is not there; said before anything is measured.
        bundle.BundleError: a folder holds none, or one without products.
    """
    providers.chain(options.provider)
    models = [
        (folder, bundle.read_manifest(folder), products.shapes_of(folder))
        for folder in options.folders
    ]
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
    skipped: dict[str, str] = {}
    with Distance(affinity) as distance, Watch(affinity, distance=distance) as watch:
        progress("cores")
        seen = cores.measure(affinity, threads, options.rounds, watch.calibrate)
        progress("memory")
        size = options.memory_bytes or memory.size(seen.cache_bytes)
        bandwidth = (
            memory.measure(size, thread_counts(threads), schedule, watch)
            if options.provider == "cpu"
            else memory.measure_device(size, threads, options.provider, schedule, watch)
        )
        rates: list[Product] = []
        cards = []
        for folder, manifest, linears in models:
            own, reason = _products(options, manifest, linears, schedule, watch, progress)
            known = {each.measured.name for each in rates}
            rates += [each for each in own if each.measured.name not in known]
            skipped |= {f"products of {manifest.name}, {manifest.precision}": reason or ""}
            progress(f"{manifest.name}, {manifest.precision}: engine by tokens")
            points = roofline.measure(
                folder,
                linears,
                threads,
                provider=options.provider,
                schedule=schedule,
                products_ms=alone_ms(own, linears, threads),
                watch=watch,
            )
            progress(f"{manifest.name}, {manifest.precision}: lanes, threads and texts")
            found = ways.measure(
                folder,
                threads,
                MIXED_LENGTHS,
                provider=options.provider,
                rounds=options.rounds,
                seconds=options.turn_seconds,
                between=watch.calibrate,
            )
            weights = folder / bundle.WEIGHTS_NAME
            cards.append(
                ModelCard(
                    name=manifest.name,
                    precision=manifest.precision,
                    linears=linears,
                    file_bytes=weights.stat().st_size if weights.exists() else 0,
                    points=points,
                    ways=found,
                )
            )
        progress("energy")
        spent = _energy(options, cards)
        noise = watch.noise()
    return Card(
        command=options.command,
        provider=options.provider,
        machine=here,
        noise=noise,
        cores=seen,
        bandwidth=bandwidth,
        products=rates,
        models=cards,
        mix=list(MIXED_LENGTHS),
        price_per_hour=options.price_per_hour,
        energy=spent,
        skipped={name: reason for name, reason in skipped.items() if reason},
    )


def alone_ms(
    found: Sequence[Product], linears: Sequence[LinearShape], threads: int
) -> dict[int, float]:
    """Milliseconds of all products of a model by tokens, on so many threads."""
    result = {}
    for tokens in roofline.TOKENS:
        times = [
            each.measured.median_ms
            for each in found
            if each.threads == threads and each.tokens == tokens and each.linear in linears
        ]
        if len(times) == len(linears):
            result[tokens] = sum(times)
    return result


def _products(  # noqa: PLR0913, PLR0917 - passed through
    options: HardwareOptions,
    manifest: bundle.Manifest,
    linears: Sequence[LinearShape],
    schedule: Schedule,
    watch: Watch,
    progress: Callable[[str], None],
) -> tuple[list[Product], str | None]:
    """Rates of a bundle's products, or why there are none."""
    if manifest.precision == "fp16" and options.provider == "cpu":
        return [], "fp16 weights are computed in float32 on a CPU: see the fp32 bundle's"
    progress(f"{manifest.name}, {manifest.precision}: products")
    threads = cpu.usable_threads()
    try:
        found = products.measure(
            "int8" if manifest.precision == "int8" else "fp32",
            linears,
            roofline.TOKENS,
            thread_counts(threads) if options.provider == "cpu" else [threads],
            provider=options.provider,
            schedule=schedule,
            watch=watch,
        )
    except products.CannotMultiplyError as error:
        return [], str(error)
    return found, None


def _energy(options: HardwareOptions, cards: Sequence[ModelCard]) -> energy.Energy:
    """Joules of the fastest way of all."""
    number, card = max(enumerate(cards), key=lambda pair: pair[1].best.rate)
    best, folder = card.best, options.folders[number]

    runner = ways.Runner(folder, ways.LaneLayout(best.lanes, best.threads), options.provider)
    batches = ways.batches(bundle.read_manifest(folder), MIXED_LENGTHS, best.texts)
    seconds = min(_ENERGY_SECONDS, 10 * options.turn_seconds)
    return energy.measure(lambda: runner.answered(batches, seconds))
