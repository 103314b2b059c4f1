"""What sessions and arenas cost in memory and time, each arrangement in a process of its own.

::

    parent ──bundle, name──> child: sessions as named, runs, /proc ──JSON──> parent
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from bertd import bundle
from bertd_server.engine import sessions
from bertd_server.engine.packing import pack
from bertd_server.engine.prepacking import prepacked
from bertd_server.models import memory
from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.engine import batches
from bertd_bench.harness import machine

SESSIONS = (
    "narrow alone",
    "wide alone, lanes share it",
    "narrow and wide",
    "narrow, and wide not prepacked",
    "both mapped",
    "both mapped, asleep between operators",
    "both mapped, spinning always",
)
ARENAS = (
    "as it is",
    "with memory patterns",
    "an arena for each session",
    "grown by what is asked for",
    "shrunk after each run",
    "no arena",
)
_BATCH = (128,)
_RUNS = 15
_ARENA_BATCHES = 600


class Sessions(BaseModel, frozen=True):
    """Bytes above those of an interpreter with ONNX Runtime; milliseconds of a 128-token text."""

    name: str
    load_seconds: float
    anonymous: int  # the process's own
    with_mapped: int  # with mapped files, each page once, once all weights have been read
    lane: float
    lane_busy: float
    wide: float
    cpu_a_wide_run: float  # milliseconds of CPU, of one wide run every 20 ms
    idle_cpu: float  # of a second, after a wide run


class Arena(BaseModel, frozen=True):
    """Own bytes after a tenth of random batches and after all; the rate on two lanes."""

    name: str
    early: int
    late: int
    tokens_a_second: float


class Arrangements(BaseModel, frozen=True):
    """One run of the benchmark."""

    model: str
    threads: int
    machine: machine.Machine
    sessions: list[Sessions]
    arenas: list[Arena]


def measure(folder: Path, progress: Callable[[str], None], *, arenas: bool) -> Arrangements:
    """Measure every arrangement on one bundle.

    Args:
        folder: the bundle.
        progress: told which one is next.
        arenas: also those of arenas, which take a thousand batches each.

    Raises:
        subprocess.CalledProcessError: a child failed; it said why.
    """
    threads = cpu.usable_threads()
    here = machine.describe(threads)

    def child(name: str) -> str:
        progress(name)
        return subprocess.run(  # noqa: S603 - this very module
            [sys.executable, "-m", "bertd_bench.engine.arrangements", str(folder), name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    return Arrangements(
        model=bundle.read_manifest(folder).name,
        threads=threads,
        machine=here,
        sessions=[Sessions.model_validate_json(child(name)) for name in SESSIONS],
        arenas=[Arena.model_validate_json(child(name)) for name in ARENAS if arenas],
    )


def _memory() -> dict[str, int]:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def _open(graph: Path, threads: int, changes: Mapping[str, str]) -> Any:
    options = sessions.configured(threads, sessions.SessionOptions())
    ort.set_default_logger_severity(3)  # it warns of every entry that is changed
    for key, value in changes.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _feeds(session: Any, manifest: bundle.Manifest, lengths: tuple[int, ...] | list[int]) -> Any:
    rng = np.random.default_rng(sum(lengths))
    texts = batches.random_texts(rng, lengths, manifest)
    feeds = pack(texts, manifest.position_offset, manifest.unnumbered_token_id).feeds()
    wanted = {entry.name for entry in session.get_inputs()}
    return {name: array for name, array in feeds.items() if name in wanted}


def _pair(folder: Path, name: str, manifest: bundle.Manifest, threads: int) -> tuple[Any, Any]:
    """The narrow and the wide session of an arrangement."""
    graph = folder / bundle.GRAPH_NAME
    if name == "narrow alone":
        session = _open(graph, 1, {})
        return session, session
    if name == "wide alone, lanes share it":
        session = _open(graph, threads, {})
        return session, session
    changes = {
        "narrow, and wide not prepacked": {"session.disable_prepacking": "1"},
        "both mapped, asleep between operators": {"session.intra_op.allow_spinning": "0"},
        "both mapped, spinning always": {"session.force_spinning_stop": "0"},
    }.get(name, {})
    if not name.startswith("both mapped"):
        return _open(graph, 1, {}), _open(graph, threads, changes)
    with prepacked(folder, manifest, None) as packed:
        return _open(packed, 1, {}), _open(packed, threads, changes)


def _sessions(folder: Path, name: str) -> Sessions:
    manifest, threads = bundle.read_manifest(folder), cpu.usable_threads()
    before, begin = _memory(), time.perf_counter()
    narrow, wide = _pair(folder, name, manifest, threads)
    load_seconds = time.perf_counter() - begin
    feeds = _feeds(narrow, manifest, _BATCH)
    for session in (narrow, wide):
        session.run(None, feeds)
    after, unread = _memory(), memory.unread_bytes()
    lane, wide_ms = (_median(partial(each.run, None, feeds)) for each in (narrow, wide))
    with ThreadPoolExecutor(threads) as pool:

        def busy() -> None:
            for run in [pool.submit(narrow.run, None, feeds) for _ in range(threads)]:
                run.result()

        lane_busy = _median(busy)
    begin_cpu = time.process_time()
    for _ in range(_RUNS):
        wide.run(None, feeds)
        time.sleep(0.02)
    cpu_a_run = (time.process_time() - begin_cpu) / _RUNS * 1e3
    begin_cpu = time.process_time()
    time.sleep(1)
    return Sessions(
        name=name,
        load_seconds=load_seconds,
        anonymous=after["Anonymous"] - before["Anonymous"],
        with_mapped=after["Pss"] + unread - before["Pss"],
        lane=lane,
        lane_busy=lane_busy,
        wide=wide_ms,
        cpu_a_wide_run=cpu_a_run,
        idle_cpu=time.process_time() - begin_cpu,
    )


def _median(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begin)
    return float(np.median(samples)) * 1e3


def _register_exact_arena() -> None:
    """The process's arena, in the place of the server's own."""
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def _arena(folder: Path, name: str) -> Arena:
    manifest = bundle.read_manifest(folder)
    options = sessions.configured(1, sessions.SessionOptions())
    run = ort.RunOptions()
    if name == "grown by what is asked for":
        _register_exact_arena()
    if name == "with memory patterns":
        options.enable_mem_pattern = True
    elif name == "no arena":
        options.enable_cpu_mem_arena = False
    elif name == "shrunk after each run":
        run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    if name in {"an arena for each session", "no arena"}:
        options.add_session_config_entry("session.use_env_allocators", "0")
    graph = str(folder / bundle.GRAPH_NAME)
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    counts: list[int] = []
    own: list[int] = []

    def lane(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while len(counts) < _ARENA_BATCHES:
            lengths = batches.random_lengths(rng, min(512, manifest.max_tokens), 2_048)
            session.run(None, _feeds(session, manifest, lengths), run)
            counts.append(sum(lengths))
            if len(counts) == _ARENA_BATCHES // 10:
                own.append(_memory()["Anonymous"])

    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(lane, seed) for seed in range(2)]:
            each.result()
    rate = sum(counts) / (time.perf_counter() - begin)
    return Arena(name=name, early=own[0], late=_memory()["Anonymous"], tokens_a_second=rate)


def _main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    found = _sessions(folder, name) if name in SESSIONS else _arena(folder, name)
    sys.stdout.write(found.model_dump_json())


if __name__ == "__main__":
    _main()
