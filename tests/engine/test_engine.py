"""Lanes and the wide session: the same bits, one copy of the weights, limits that hold."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle import GRAPH_NAME, read_manifest
from bertd.bundle.kernels import find
from bertd_export.bundle import export_model
from bertd_export.quantization.int8 import Int8Options
from bertd_server.cli import serve
from bertd_server.engine import prepacking
from bertd_server.engine.engine import NO_LIMIT, EngineOptions
from bertd_server.engine.prepacking import prepacked
from bertd_server.errors import CannotServeError
from bertd_server.models import calibration, memory, shapes, startup
from bertd_server.models.startup import StartOptions
from bertd_server.system import cache_folder
from bertd_server.system.setting_types import parse_bytes
from click.testing import CliRunner
from helpers.engines import engine, entries, texts
from helpers.tiny import save_tiny
from structlog.testing import capture_logs

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "max_position_embeddings": 520,
}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for ONNX Runtime to split its products over threads."""
    scratch = tmp_path_factory.mktemp("engine")
    source = save_tiny(scratch / "source", "bert", **SIZES)
    int8 = Int8Options(min_cosine=0.5) if request.param == "int8" else None
    export_model(str(source), scratch / "bundle", int8=int8)
    return scratch / "bundle"


def test_a_text_has_the_same_bits_alone_in_a_batch_on_lanes_and_wide(folder: Path) -> None:
    """Number of rows, number of threads and neighbours leave every bit as it is."""
    one = engine(folder)
    assert one.has_wide
    assert one.lanes == 2
    rng = np.random.default_rng(7)
    pool = texts([*range(1, 40), 64, 127, 128, 129, 255, 256, 257, 300, 511, 512])
    alone = [one.embed([text]) for text in pool]
    with ThreadPoolExecutor(one.lanes) as lanes:
        for _ in range(25):
            chosen = rng.integers(len(pool), size=int(rng.integers(1, 20)))
            batch = [pool[index] for index in chosen]
            expected = np.concatenate([alone[index] for index in chosen])
            for run in [lanes.submit(one.embed, batch) for _ in range(one.lanes)]:
                np.testing.assert_array_equal(run.result(), expected)
            np.testing.assert_array_equal(one.embed(batch, wide=True), expected)
            rows = one.answer(batch, wide=True)
            answers = np.concatenate([each["sentence_embedding"] for each in rows])
            np.testing.assert_array_equal(answers, expected)


def test_mapped_weights_give_the_bits_of_a_session_of_their_own(folder: Path) -> None:
    """One thread needs no file of prepacked weights; two threads map one."""
    batch = texts([3, 200, 41, 41])
    own = engine(folder, EngineOptions(threads=1))
    assert not own.has_wide
    np.testing.assert_array_equal(own.embed(batch), engine(folder).embed(batch, wide=True))


def test_prepacked_weights_are_kept_checked_and_written_again(small: Path, tmp_path: Path) -> None:
    """A damaged file is replaced."""
    manifest = read_manifest(small)
    with prepacked(small, manifest, tmp_path) as graph:
        weights = graph.with_name("model.onnx.data")
        first = weights.read_bytes()
        written = weights.stat().st_mtime_ns
    with prepacked(small, manifest, tmp_path) as again:
        assert again == graph
        assert weights.stat().st_mtime_ns == written
    weights.write_bytes(first[:-1] + b"x")
    with prepacked(small, manifest, tmp_path):
        assert weights.read_bytes() == first
    assert entries(tmp_path / "prepacked") == [graph.parent.name]  # nothing half-written stays


@pytest.mark.parametrize("obstacle", ["no folder", "disk full"])
def test_a_server_that_cannot_keep_prepacked_weights_starts_without(
    small: Path, tmp_path: Path, obstacle: str
) -> None:
    """It costs memory, not answers; the log names the setting that helps. ONNX Runtime's own
    writes fail with an exception of its own, which a limit on the size of files brings about."""
    cache = tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if obstacle == "no folder":
        cache.write_text("a file")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with capture_logs() as logs:
            there = engine(small, EngineOptions(threads=2, cache=cache))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry["event"] for entry in logs] == ["weights in memory twice"]
    assert "--cache-folder" in logs[0]["remedy"]
    assert there.embed(texts([5]), wide=True).shape == (1, there.manifest.dimensions)
    if obstacle == "disk full":
        assert str(cache) in logs[0]["reason"]
        assert not entries(cache / "prepacked")


def test_servers_that_start_at_once_share_what_the_first_one_wrote(
    small: Path, tmp_path: Path
) -> None:
    """Here beside a damaged entry, which all of them want to replace."""
    options, kernels = EngineOptions(threads=2, cache=tmp_path), find(small / GRAPH_NAME)
    with prepacked(small, read_manifest(small), tmp_path, kernels=kernels) as graph:
        graph.write_bytes(b"")
    with capture_logs() as logs, ThreadPoolExecutor(3) as threads:
        engines = [threads.submit(engine, small, options) for _ in range(3)]
        answers = [each.result().embed(texts([9]), wide=True) for each in engines]
    assert not logs  # nobody has the weights twice
    assert entries(tmp_path / "prepacked") == [graph.parent.name]
    np.testing.assert_array_equal(answers[0], answers[1])
    first = graph.stat().st_ino
    prepacking._put(
        small, read_manifest(small), graph.parent, kernels
    )  # one that saw no entry, and is done when there is one
    assert graph.stat().st_ino == first
    assert entries(tmp_path / "prepacked") == [graph.parent.name]


def test_a_start_removes_what_nobody_uses(small: Path, tmp_path: Path) -> None:
    """Not what is newer, what another server holds however old it is, or what is not ours."""
    manifest, options = read_manifest(small), EngineOptions(threads=2, cache=tmp_path)
    folder = tmp_path / "prepacked"
    with prepacked(small, manifest, tmp_path, kernels=find(small / GRAPH_NAME)) as graph:
        own = graph.parent
    held, unused, newer, foreign = ("a" * 32, "b" * 32, "c" * 32, "notes")
    killed, writing = f"{unused}.k2_x", f"{unused}.w9_q"
    long_ago, yesterday = (time.time() - days * 86_400 for days in (31, 2))
    for name, used in (
        (own.name, long_ago),
        (held, long_ago),
        (unused, long_ago),
        (newer, yesterday),
        (foreign, long_ago),
        (killed, time.time()),
        (writing, yesterday),
    ):
        (folder / name).mkdir(exist_ok=True)
        os.utime(folder / name, (used, used))
    (tmp_path / "calibration").mkdir()
    stale = tmp_path / "calibration" / f"{unused}.json"
    stale.touch()
    os.utime(stale, (long_ago, long_ago))
    other = engine(small)
    for name in (held, writing):
        cache_folder.hold(folder / name, other)
    starting = StartOptions(warmup_seconds=0, calibration_seconds=0, cache=tmp_path)
    mine, _ = startup.start(small, manifest, options, starting)
    assert entries(folder) == sorted([own.name, held, newer, foreign, writing])
    assert entries(tmp_path / "calibration") == []

    os.utime(own, (long_ago, long_ago))
    os.utime(folder / held, (long_ago, long_ago))
    assert not cache_folder.sweep(folder)  # both servers live
    assert mine.has_wide
    del mine, other
    assert cache_folder.sweep(folder) == sorted([own.name, held, writing])


def test_a_provider_that_is_not_here_is_refused_with_what_is(small: Path) -> None:
    with pytest.raises(CannotServeError, match=r"tensorrt is not in .* which has cpu: choose"):
        engine(small, EngineOptions(provider="tensorrt"))
    result = CliRunner().invoke(serve, [str(small), "--provider", "cuda"])
    assert result.exit_code == 2
    assert "--provider, or install onnxruntime-gpu" in result.output
    assert CliRunner().invoke(serve, [str(small), "--provider", "abacus"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("4096", 4096), ("2GiB", 2**31), ("1.5 gb", 1_500_000_000), ("64 MiB", 2**26)],
)
def test_amounts_of_memory(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "much", "-1", "2 TiB?", "1e9"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2GiB"):
        parse_bytes(text)


def test_the_memory_limit_bounds_batches_or_refuses_to_start(small: Path) -> None:
    """More memory, larger batches; a limit below the model itself is said so."""
    one = engine(small)
    memory.limit_batches(one, 0)
    assert one.max_batch_tokens == NO_LIMIT
    now = memory.resident_bytes()
    allowed = []
    for more in (2**27, 2**28):
        memory.limit_batches(one, now + more)
        allowed.append(one.max_batch_tokens)
    longest = one.manifest.max_tokens
    assert longest <= allowed[0] < allowed[1] < NO_LIMIT
    batch = shapes.texts([longest] * (allowed[0] // longest), one.manifest, worst=True)
    one.answer(batch)
    assert memory.resident_bytes() < now + 2**27
    memory.limit_batches(one, now + 2**28, cache_bytes=2**27)
    assert one.max_batch_tokens < allowed[1]
    with pytest.raises(CannotServeError, match=r"and 256 MiB for results.*lower .*--cache-bytes"):
        memory.limit_batches(one, now + 2**28, cache_bytes=2**28)
    with pytest.raises(CannotServeError, match=r"memory_limit is 10 MiB.*raise --memory-limit"):
        memory.limit_batches(one, 10 * 2**20)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what is mapped")
def test_pages_that_another_process_maps_too_count_in_full(tmp_path: Path) -> None:
    """Once, however often this one maps them: when the other stops, they are all of this one."""
    file, size = tmp_path / "pages", 2**25
    file.write_bytes(bytes(size))
    script = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(pages[::4096])\n"
        "print('read', flush=True)\n"
        "sys.stdin.read()\n"
    )
    before = memory.resident_bytes()
    with (
        subprocess.Popen(
            [sys.executable, "-c", script, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as beside,
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as once,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as twice,
    ):
        assert beside.stdout is not None
        assert beside.stdout.readline() == "read\n"
        assert sum(once[::4096]) == sum(twice[::4096]) == 0
        grown = memory.resident_bytes() - before
        beside.communicate()
    assert size <= grown < 1.25 * size


def test_long_texts_are_in_the_grid_alone() -> None:
    """Up to the longest; 512 tokens and a batch's limit bound only texts that have company."""
    usual = shapes.grid(512, 2048)
    assert sum(usual[-1]) == 2048
    more = [lengths for lengths in shapes.grid(8192, 2048) if lengths not in usual]
    assert more == [(1024,), (2048,), (4096,), (8192,)]
    assert shapes.grid(514, 100)[-2:] == [(512,), (514,)]
    assert shapes.grid(100, 100)[-1] == (100,)


def test_warm_up_ends_in_time(small: Path) -> None:
    """The grid is run while there is time, the smallest batch in any case."""
    one = engine(small)
    every = len(shapes.grid(one.manifest.max_tokens, calibration.MAX_TOKENS))
    assert startup.warm_up(one, 0) == 1
    assert startup.warm_up(one, 60) == every


def test_texts_that_take_most_memory_hold_masks_alone(small: Path) -> None:
    """Fill-mask projects every mask to the vocabulary."""
    manifest = read_manifest(small).model_copy(update={"mask_token_id": 4})
    worst = shapes.texts([6], manifest, worst=True)[0].input_ids
    assert worst.tolist() == [4] * 6
    assert shapes.texts([6], manifest)[0].input_ids.tolist().count(4) == 1
