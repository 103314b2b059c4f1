"""What was measured, the targets, and the table for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from bertd_bench.harness.machine import Machine

REFUSAL_LIMIT = 0.020  # seconds
LIGHT_LIMIT = 0.001  # seconds above the bare engine
GOODPUT_LIMIT = 0.9  # of capacity


class Cores(BaseModel, frozen=True):
    """CPU seconds a second: how many cores each was worth."""

    client: float
    server: dict[str, float]


class Latency(BaseModel, frozen=True):
    """Percentiles, in seconds, and of how many samples."""

    samples: int
    p50: float
    p99: float
    most: float


class Throughput(BaseModel, frozen=True):
    """Calls of one size, asked in a closed loop.

    Attributes:
        ratio: median, over the rounds, of texts a second over those of the bare engine.
    """

    texts_per_call: int
    workers: int
    texts_per_second: float
    ratio: float
    rounds: list[tuple[float, float]]  # server, bare engine
    cores: Cores


class Light(BaseModel, frozen=True):
    """Single texts at 10 % of what the server can do.

    Attributes:
        added: median of p50 served - p50 bare over the rounds.
        stages: median seconds of each, as answers say; the rest is transport and the client.
        late: how far the generator was behind its plan.
    """

    texts_per_second: float
    served: Latency
    bare: Latency
    added: float
    stages: dict[str, float]
    late: Latency


class Overload(BaseModel, frozen=True):
    """Calls of one size, twice as many as the server can answer; calls a second."""

    texts_per_call: int
    capacity: float
    offered: float
    goodput: float
    deadlines: list[float]
    outcomes: dict[str, int]
    refusals: Latency | None
    refused_in_time: float  # share of refusals within the limit
    pushback: float  # share of refusals that say when to retry
    late: Latency
    cores: Cores


class Bulk(BaseModel, frozen=True):
    """Single texts at 10 % load, without and with calls of 256 texts beside them."""

    alone: Latency
    beside: Latency
    bulk_call: Latency
    bulk_texts_per_second: float


class LoadReport(BaseModel, frozen=True):
    """One run of `bertd bench serve-load`."""

    model: str
    threads: int
    settings: dict[str, str]
    machine: Machine
    engine: str  # how the bare engine did most
    engine_texts_per_second: float
    mean_tokens: float
    throughput_target: float
    throughput: list[Throughput]
    light: Light
    overload: list[Overload]
    bulk: Bulk
    counts: dict[str, int]  # by the server, from its start to its end


class Target(NamedTuple):
    """A figure and what it should be."""

    name: str
    wanted: str
    measured: str
    met: bool


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles, interpolated between samples.

    Raises:
        ValueError: there are no samples.
    """
    if not seconds:
        raise ValueError("there are no samples to summarize")
    p50, p99, most = np.percentile(np.array(seconds), [50, 99, 100])
    return Latency(samples=len(seconds), p50=float(p50), p99=float(p99), most=float(most))


def targets(report: LoadReport) -> list[Target]:
    """Every target, met or not."""
    rows = []
    most = max(report.throughput, key=lambda row: row.ratio)
    rows.append(
        Target(
            f"saturated, {most.texts_per_call} texts a call, over the bare engine",
            f"≥ {report.throughput_target:.2f}",
            f"{most.ratio:.2f}",
            most.ratio >= report.throughput_target,
        )
    )
    rows.append(
        Target(
            "p50 at 10 % load, above the bare engine",
            f"≤ {LIGHT_LIMIT * 1e3:.1f} ms",
            f"{report.light.added * 1e3:.2f} ms",
            report.light.added <= LIGHT_LIMIT,
        )
    )
    for row in report.overload:
        size = _calls(row.texts_per_call)
        rows.append(
            Target(
                f"goodput at {row.offered / row.capacity:.1f}x, {size}, over capacity",
                f"≥ {GOODPUT_LIMIT:.2f}",
                f"{row.goodput / row.capacity:.2f}",
                row.goodput >= GOODPUT_LIMIT * row.capacity,
            )
        )
        if row.refusals is not None:
            rows.append(
                Target(
                    f"slowest refusal, {size}",
                    f"≤ {REFUSAL_LIMIT * 1e3:.0f} ms",
                    f"{row.refusals.most * 1e3:.1f} ms "
                    f"({row.refused_in_time:.2%} of {row.refusals.samples} in time)",
                    row.refusals.most <= REFUSAL_LIMIT,
                )
            )
    late = report.counts["started_late"]
    rows.append(Target("texts computed after their deadline", "0", str(late), late == 0))
    return rows


def to_markdown(report: LoadReport) -> str:
    """Tables for the documentation."""
    light, bulk = report.light, report.bulk
    stages = ", ".join(f"{value * 1e3:.2f} ms {name}" for name, value in light.stages.items())
    introduction = (
        f"{report.model}, {report.threads} threads, {report.machine.cpu}, "
        f"load {report.machine.load_average[0]:.2f} before the run. Texts of "
        f"{report.mean_tokens:.0f} tokens on average; the client shares the cores. "
        f"The bare engine does {report.engine_texts_per_second:.0f} texts a second "
        f"({report.engine})."
    )
    lines = [
        introduction,
        "",
        "| target | wanted | measured | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.wanted} | {row.measured} | {'met' if row.met else '**missed**'} |"
        for row in targets(report)
    ]
    lines += [
        "",
        "| saturated | texts/s | of the bare engine | cores: client | server's front | its lanes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in report.throughput:
        front, rest = _front(row.cores)
        lines.append(
            f"| {_calls(row.texts_per_call)}, {row.workers} at once | {row.texts_per_second:.0f} "
            f"| {row.ratio:.2f} | {row.cores.client:.2f} | {front:.2f} | {rest:.2f} |"
        )
    lines += [
        "",
        "| single texts | p50 | p99 |",
        "|---|---:|---:|",
        _latency_row("bare engine", light.bare),
        _latency_row("served, 10 % load", light.served),
        _latency_row("the same beside calls of 256 texts", bulk.beside),
        "",
        f"At 10 % load the median was {stages}.",
        "",
        f"One call of 256 texts took {bulk.bulk_call.p50 * 1e3:.0f} ms.",
    ]
    return "\n".join(lines) + "\n"


def _front(cores: Cores) -> tuple[float, float]:
    from_lanes = sum(value for kind, value in cores.server.items() if kind.startswith("lanes"))
    return sum(cores.server.values()) - from_lanes, from_lanes


def _latency_row(name: str, value: Latency) -> str:
    return f"| {name} | {value.p50 * 1e3:.1f} ms | {value.p99 * 1e3:.1f} ms |"


def _calls(texts: int) -> str:
    return "single texts" if texts == 1 else f"{texts} texts a call"
