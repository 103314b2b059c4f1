"""The measurements, each against a server that runs all the while.

::

    saturate   closed loop, calls of one size, in turns with the bare engine
    light      single texts at 10 % of that, in turns with the bare engine at the same moments
    overload   twice that, with deadlines
    bulk       single texts at 10 %, without and with calls of 256 texts
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from bertd.v1 import inference_pb2

from bertd_bench.load import cpu
from bertd_bench.load.bare import BareEngine, Best, seeded
from bertd_bench.load.client import ClientRun, Stream, put_load
from bertd_bench.load.generator import Closed, Open, Outcome, Record, poisson, rate, steady_rate
from bertd_bench.load.mix import serialize
from bertd_bench.load.serve_results import (
    REFUSAL_LIMIT,
    Bulk,
    Cores,
    Latency,
    Light,
    Overload,
    Throughput,
    latency,
)

BULK = 256  # the most that a call takes
_SPIN = 0.002
_FLOAT_BYTES = 4
_NEVER = 60.0  # seconds; a deadline that is there and never matters
_PATIENCE = (10.0, 20.0, 40.0)  # deadlines under overload, in times that one call takes
_LEAST_DEADLINE = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that a measurement needs; `seconds` is the length of one turn."""

    address: str
    pid: int
    client: Executor
    engine: BareEngine
    texts: Sequence[str]
    dimensions: int
    seconds: float
    rounds: int

    def put(self, *streams: Stream) -> tuple[ClientRun, Cores]:
        """Put loads on the server, and see who used the cores."""
        before = cpu.thread_seconds(self.pid)
        run = self.client.submit(put_load, self.address, streams).result()
        used = cpu.difference(before, cpu.thread_seconds(self.pid))
        server = {kind: seconds / run.seconds for kind, seconds in used.items()}
        return run, Cores(client=run.cpu_seconds / run.seconds, server=server)

    def stream(
        self, load: Closed | Open, texts_per_call: int, texts: Sequence[str] | None = None
    ) -> Stream:
        """A load of calls of one size, over these texts or all."""
        calls = serialize(self.texts if texts is None else texts, texts_per_call)
        return Stream(load, tuple(calls), texts_per_call * self.dimensions * _FLOAT_BYTES)


def saturate(bench: Bench, way: Best, sizes: dict[int, int]) -> list[Throughput]:
    """Texts a second of calls of each size, asked by so many workers, in turns."""
    sequences = bench.engine.sequences(bench.texts)
    rounds: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    cores: dict[int, list[Cores]] = {size: [] for size in sizes}
    for _ in range(bench.rounds):
        for size, workers in sizes.items():
            bare = bench.engine.rate(way, sequences, bench.seconds / 2)
            load = Closed(workers, bench.seconds)
            run, used = bench.put(bench.stream(load, size))
            bare = (bare + bench.engine.rate(way, sequences, bench.seconds / 2)) / 2
            served = size * steady_rate(run.records[0], load)
            rounds[size].append((served, bare))
            cores[size].append(used)
    return [
        Throughput(
            texts_per_call=size,
            workers=workers,
            texts_per_second=statistics.median(served for served, _ in rounds[size]),
            ratio=statistics.median(served / bare for served, bare in rounds[size]),
            rounds=rounds[size],
            cores=_mean(cores[size]),
        )
        for size, workers in sizes.items()
    ]


def light(bench: Bench, texts_per_second: float) -> Light:
    """Single texts at a low rate against the same texts at the same moments without a server."""
    sequences = bench.engine.sequences(bench.texts)
    records: list[Record] = []
    bare: list[float] = []
    added = []
    for number in range(2 * bench.rounds):
        plan = poisson(texts_per_second, bench.seconds, [_NEVER], seeded(number), _SPIN)
        alone = bench.engine.alone(sequences, plan)
        run, _ = bench.put(replace(bench.stream(plan, 1), keep=True))
        good = [record for record in run.records[0] if record.good]
        if alone and good:
            served = statistics.median(record.latency for record in good)
            added.append(served - statistics.median(alone))
        records += good
        bare += alone
    return Light(
        texts_per_second=texts_per_second,
        served=_latencies(records),
        bare=latency(bare),
        added=statistics.median(added),
        stages=_stages(records),
        late=latency(_lateness(records)),
    )


def _stages(records: Sequence[Record]) -> dict[str, float]:
    """Median seconds of the stages of calls with one text."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        (result,) = inference_pb2.EmbedResponse.FromString(record.reply.answer).results
        timings = result.timings
        known = {
            "tokenising": timings.tokenize_ns / 1e9,
            "queue": timings.queue_ns / 1e9,
            "compute": timings.compute_ns / 1e9,
        }
        known["transport and client"] = record.latency - sum(known.values())
        for name, seconds in known.items():
            found[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def overload(bench: Bench, texts_per_call: int, capacity: float) -> Overload:
    """Twice the capacity, in calls a second, each call with a deadline."""
    deadlines = [max(_LEAST_DEADLINE, times / capacity) for times in _PATIENCE]
    seconds = 2 * bench.seconds + 2 * max(deadlines)
    plan = poisson(2 * capacity, seconds, deadlines, seeded(texts_per_call))
    run, cores = bench.put(bench.stream(plan, texts_per_call))
    records = run.records[0]
    refused = [record for record in records if record.reply.outcome is Outcome.REFUSED]
    waits = [record.latency for record in refused]
    return Overload(
        texts_per_call=texts_per_call,
        capacity=capacity,
        offered=2 * capacity,
        goodput=rate(records, max(deadlines), seconds),
        deadlines=deadlines,
        outcomes=dict(Counter(_outcome(record) for record in records)),
        refusals=latency(waits) if waits else None,
        refused_in_time=_share([wait <= REFUSAL_LIMIT for wait in waits]),
        pushback=_share([record.reply.pushback for record in refused]),
        late=latency(_lateness(records)),
        cores=cores,
    )


def bulk(bench: Bench, texts_per_second: float) -> Bulk:
    """Latency of single texts without and with two calls of 256 texts always in flight."""
    half = len(bench.texts) // 2
    plan = poisson(texts_per_second, 2 * bench.seconds, [_NEVER], seeded(BULK), _SPIN)
    singles = bench.stream(plan, 1, bench.texts[half:])
    alone, _ = bench.put(singles)
    calls = bench.stream(Closed(2, 2 * bench.seconds), BULK, bench.texts[:half])
    beside, _ = bench.put(singles, calls)
    return Bulk(
        alone=_latencies(alone.records[0]),
        beside=_latencies(beside.records[0]),
        bulk_call=_latencies(beside.records[1]),
        bulk_texts_per_second=BULK * rate(beside.records[1], 0.0, beside.seconds),
    )


def _latencies(records: Sequence[Record]) -> Latency:
    return latency([record.latency for record in records if record.good])


def _lateness(records: Sequence[Record]) -> list[float]:
    return [record.sent - record.due for record in records]


def _outcome(record: Record) -> str:
    late = record.reply.outcome is Outcome.ANSWERED and not record.good
    return "answered late" if late else record.reply.outcome.value


def _share(true: Sequence[bool]) -> float:
    return sum(true) / len(true) if true else 1.0


def _mean(cores: Sequence[Cores]) -> Cores:
    kinds = {kind for each in cores for kind in each.server}
    return Cores(
        client=statistics.fmean(each.client for each in cores),
        server={
            kind: statistics.fmean(each.server.get(kind, 0.0) for each in cores)
            for kind in sorted(kinds)
        },
    )
