"""`bertd bench serve-load`: starts a server, and puts one load after the other on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bertd import bundle
from bertd_server.system import cpu
from tokenizers import Tokenizer

from bertd_bench.contestants.eager import server_process
from bertd_bench.harness import machine
from bertd_bench.load import bare, client, mix, phases
from bertd_bench.load.serve_results import LoadReport

SIZES = {1: 64, 8: 16, 32: 6}  # texts of a call, and calls in flight
_OVERLOADED = (1, 8)
_TEXTS = 4_096  # more than are ever in flight, so that no two of those are equal
_LIGHT = 0.1
_PROBE_SECONDS = 1.0


def measure(  # noqa: PLR0913 - the choices of one run
    folder: Path,
    *,
    threads: int | None,
    seconds: float,
    rounds: int,
    target: float,
    settings: Mapping[str, str],
    progress: Callable[[str], None],
) -> LoadReport:
    """Measure a server of a bundle.

    Args:
        folder: the bundle.
        threads: that the server may use; None for all.
        seconds: length of one turn.
        rounds: turns of each measurement that is repeated.
        target: least share of the bare engine's throughput.
        settings: further ones of the server, by their names.
        progress: told what is being measured.

    Raises:
        BenchError: the server did not start.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    manifest = bundle.read_manifest(folder)
    tokenizer = Tokenizer.from_file(str(folder / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = mix.build_texts(tokenizer, _TEXTS, bare.seeded(0))
    engine = bare.BareEngine(folder, threads)
    progress("the bare engine")
    way = engine.best(engine.sequences(texts), min(_PROBE_SECONDS, seconds))
    with server_process(folder, threads, settings) as server, client.process_pool() as pool:
        server.wait_until_listening()
        bench = phases.Bench(
            server.address,
            server.process.pid,
            pool,
            engine,
            texts,
            manifest.dimensions,
            seconds,
            rounds,
        )
        progress("saturation")
        throughput = phases.saturate(bench, way, SIZES)
        capacity = {row.texts_per_call: row.texts_per_second for row in throughput}
        progress("light load")
        light = phases.light(bench, _LIGHT * capacity[1])
        progress("bulk calls beside single texts")
        bulk = phases.bulk(bench, _LIGHT * capacity[1])
        overload = []
        for size in _OVERLOADED:
            progress(f"overload, {size} texts a call")
            overload.append(phases.overload(bench, size, capacity[size] / size))
        counts = server.stop()
    bare_rates = sorted(rate for row in throughput for _, rate in row.rounds)
    return LoadReport(
        model=manifest.name,
        threads=threads,
        settings=dict(settings),
        machine=here,
        engine=str(way),
        engine_texts_per_second=bare_rates[len(bare_rates) // 2],
        mean_tokens=mix.MEAN_TOKENS,
        throughput_target=target,
        throughput=throughput,
        light=light,
        overload=overload,
        bulk=bulk,
        counts={name: count for name, count in counts.items() if isinstance(count, int)},
    )
