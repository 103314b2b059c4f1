"""Measures a card, part by part; see the package's picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd_server.engine import providers
from bertd_server.system import cpu
from bertd_server.system.setting_types import Provider

from bertd_bench.hardware import (
    bandwidth,
    cores,
    device_memory,
    energy,
    products,
    roofline,
    shapes,
    ways,
)
from bertd_bench.hardware.card import Card, ModelCard
from bertd_bench.hardware.products import Product
from bertd_bench.harness import machine
from bertd_bench.harness.noise import Distance, Watch
from bertd_bench.harness.rounds import Schedule
from bertd_bench.harness.texts import MIXED_LENGTHS

_ENERGY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
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


def measure(plan: Plan, progress: Callable[[str], None]) -> Card:
    """Measure everything.

    Raises:
        CannotServeError: the provider is not there; said before anything is measured.
        bundle.BundleError: a folder holds none, or one without products.
    """
    providers.chain(plan.provider)
    models = [(folder, bundle.read_manifest(folder), shapes.of(folder)) for folder in plan.folders]
    threads = cpu.usable_threads()
    here = machine.describe(threads)
    affinity = here.affinity or list(range(threads))
    schedule = Schedule(
        plan.rounds,
        repeats=5,
        pause_seconds=0.005,
        steady_seconds=plan.turn_seconds,
        turn_seconds=plan.turn_seconds / 4,
    )
    skipped: dict[str, str] = {}
    with Distance(affinity) as distance, Watch(affinity, distance=distance) as watch:
        progress("cores")
        seen = cores.measure(affinity, threads, plan.rounds, watch.calibrate)
        progress("memory")
        size = plan.memory_bytes or bandwidth.size(seen.cache_bytes)
        memory = (
            bandwidth.measure(size, thread_counts(threads), schedule, watch)
            if plan.provider == "cpu"
            else device_memory.measure(size, threads, plan.provider, schedule, watch)
        )
        rates: list[Product] = []
        cards = []
        for folder, manifest, linears in models:
            own, reason = _products(plan, manifest, linears, schedule, watch, progress)
            rates += [each for each in own if each.measured.name not in _names(rates)]
            skipped |= {f"products of {manifest.name}, {manifest.precision}": reason or ""}
            progress(f"{manifest.name}, {manifest.precision}: engine by tokens")
            points = roofline.measure(
                folder,
                linears,
                threads,
                provider=plan.provider,
                schedule=schedule,
                products_ms=alone_ms(own, linears, threads),
                watch=watch,
            )
            progress(f"{manifest.name}, {manifest.precision}: lanes, threads and texts")
            found = ways.measure(
                folder,
                threads,
                MIXED_LENGTHS,
                provider=plan.provider,
                rounds=plan.rounds,
                seconds=plan.turn_seconds,
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
        spent = _energy(plan, cards)
        noise = watch.noise()
    return Card(
        command=plan.command,
        provider=plan.provider,
        machine=here,
        noise=noise,
        cores=seen,
        bandwidth=memory,
        products=rates,
        models=cards,
        mix=list(MIXED_LENGTHS),
        price_per_hour=plan.price_per_hour,
        energy=spent,
        skipped={name: reason for name, reason in skipped.items() if reason},
    )


def alone_ms(
    found: Sequence[Product], linears: Sequence[shapes.Linear], threads: int
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


def _names(found: Sequence[Product]) -> set[str]:
    return {each.measured.name for each in found}


def _products(  # noqa: PLR0913, PLR0917 - passed through
    plan: Plan,
    manifest: bundle.Manifest,
    linears: Sequence[shapes.Linear],
    schedule: Schedule,
    watch: Watch,
    progress: Callable[[str], None],
) -> tuple[list[Product], str | None]:
    """Rates of a bundle's products, or why there are none."""
    if manifest.precision == "fp16" and plan.provider == "cpu":
        return [], "fp16 weights are computed in float32 on a CPU: see the fp32 bundle's"
    progress(f"{manifest.name}, {manifest.precision}: products")
    threads = cpu.usable_threads()
    try:
        found = products.measure(
            "int8" if manifest.precision == "int8" else "fp32",
            linears,
            roofline.TOKENS,
            thread_counts(threads) if plan.provider == "cpu" else [threads],
            provider=plan.provider,
            schedule=schedule,
            watch=watch,
        )
    except products.CannotMultiplyError as error:
        return [], str(error)
    return found, None


def _energy(plan: Plan, cards: Sequence[ModelCard]) -> energy.Energy:
    """Joules of the fastest way of all."""
    number, card = max(enumerate(cards), key=lambda pair: pair[1].best.rate)
    best, folder = card.best, plan.folders[number]

    runner = ways.Runner(folder, ways.Arrangement(best.lanes, best.threads), plan.provider)
    batches = ways.batches(bundle.read_manifest(folder), MIXED_LENGTHS, best.texts)
    seconds = min(_ENERGY_SECONDS, 10 * plan.turn_seconds)
    return energy.measure(lambda: runner.answered(batches, seconds))
