"""Lanes and the wide session: the same bits, one copy of the weights, limits that hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.int8 import Int8Options
from bertd_server import calibration, memory, shapes, startup
from bertd_server.cli import serve
from bertd_server.engine import NO_LIMIT, Engine, EngineOptions
from bertd_server.errors import CannotServeError
from bertd_server.packing import TokenSequence
from bertd_server.sessions import prepacked
from bertd_server.values import parse_bytes
from click.testing import CliRunner
from structlog.testing import capture_logs
from tiny import save_tiny

WIDE = EngineOptions(threads=2)
SIZES = {"hidden_size": 128, "intermediate_size": 512, "max_position_embeddings": 520}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for ONNX Runtime to split its products over threads."""
    scratch = tmp_path_factory.mktemp("engine")
    source = save_tiny(scratch / "source", "bert", **SIZES)
    int8 = Int8Options(min_cosine=0.5) if request.param == "int8" else None
    export_model(str(source), scratch / "bundle", int8=int8)
    return scratch / "bundle"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("small")
    export_model(str(save_tiny(scratch / "source", "bert")), scratch / "bundle")
    return scratch / "bundle"


def engine(folder: Path, options: EngineOptions = WIDE) -> Engine:
    return Engine(folder, read_manifest(folder), options)


def texts(lengths: Sequence[int], vocabulary: int = 320) -> list[TokenSequence]:
    rng = np.random.default_rng(len(lengths))
    return [TokenSequence(rng.integers(5, vocabulary, n), np.zeros(n, np.int64)) for n in lengths]


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
    """A damaged file is replaced; a folder that cannot be written costs memory, not answers."""
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
    assert len(list(graph.parent.parent.iterdir())) == 1  # nothing half-written stays

    (tmp_path / "file").write_text("no folder")
    with capture_logs() as logs:
        there = engine(small, EngineOptions(threads=2, cache=tmp_path / "file"))
    assert [entry["event"] for entry in logs] == ["weights in memory twice"]
    assert there.embed(texts([5]), wide=True).shape == (1, manifest.dimensions)


def test_a_provider_that_is_not_here_is_refused_with_what_is(small: Path) -> None:
    with pytest.raises(CannotServeError, match=r"tensorrt is not in .* which has cpu: choose"):
        engine(small, EngineOptions(provider="tensorrt"))
    result = CliRunner().invoke(serve, [str(small), "--provider", "cuda"])
    assert result.exit_code == 1
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
    with pytest.raises(CannotServeError, match=r"memory_limit is 10 MiB.*raise --memory-limit"):
        memory.limit_batches(one, 10 * 2**20)


def test_calibration_is_kept_for_this_bundle_and_these_options_alone(
    small: Path, tmp_path: Path
) -> None:
    """What is damaged, foreign or made for other options is measured again."""
    one = engine(small)
    measured = calibration.calibrate(one, seconds=60, cache=tmp_path)
    assert not measured.from_cache
    assert len(measured.lane) > 3
    assert all(m.seconds > 0 for m in (*measured.lane, *measured.wide))
    kept = calibration.calibrate(one, seconds=60, cache=tmp_path)
    assert kept.from_cache
    assert (kept.lane, kept.wide) == (measured.lane, measured.wide)
    other = calibration.calibrate(engine(small, EngineOptions()), seconds=0, cache=tmp_path)
    assert not other.from_cache
    assert len(other.lane) == 1  # no time: the smallest batch
    assert not other.wide

    file = next(path for path in tmp_path.iterdir() if len(json.loads(path.read_text())["wide"]))
    good = json.loads(file.read_text())
    foreign = {**good, "made_for": ["another host"]}
    impossible = {**good, "lane": [{**good["lane"][0], "seconds": -1}]}
    for content in ("{", json.dumps(foreign), json.dumps(impossible)):
        file.write_text(content)
        assert not calibration.calibrate(one, seconds=0, cache=tmp_path).from_cache
        assert calibration.calibrate(one, seconds=0, cache=tmp_path).from_cache
    assert len(list(tmp_path.iterdir())) == 2  # nothing half-written stays


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
