"""The engine's benchmarks: they run on a tiny bundle, and the document says what they found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bertd_bench.cli import bench
from bertd_bench.engine import attention, batches, results
from bertd_bench.engine.attention_graphs import BASELINE, OURS
from bertd_export.bundle import export_model
from click.testing import CliRunner
from helpers.paths import ROOT
from helpers.tiny import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("engine-bench")
    export_model(str(save_tiny(scratch / "source", "bert")), scratch / "bundle")
    return scratch / "bundle"


def test_the_document_says_what_was_measured() -> None:
    """`bertd bench engine-docs` would change nothing."""
    text = (ROOT / "docs" / "lab" / "engine.md").read_text(encoding="utf-8")
    assert text == results.rewrite(text, ROOT / "benchmarks" / "results")


def test_missing_results_name_the_command_that_makes_them(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "lab" / "engine.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="run `bertd bench attention --json FILE`"):
        results.rewrite(text, tmp_path)


def test_random_batches_keep_to_their_limits() -> None:
    rng = np.random.default_rng(0)
    drawn = [batches.random_lengths(rng, 100, 300) for _ in range(300)]
    assert all(0 < len(lengths) <= 64 and sum(lengths) <= 300 for lengths in drawn)
    assert {max(lengths) > 64 for lengths in drawn} == {True, False}
    assert max(map(max, drawn)) <= 100


def test_memory_and_bits_of_a_tiny_bundle(folder: Path, tmp_path: Path) -> None:
    """Both commands finish, and write what they found."""
    target = tmp_path / "memory.json"
    command = ["memory", str(folder), "--batches", "40", "--json", str(target)]
    result = CliRunner().invoke(bench, command)
    assert result.exit_code == 0, result.output
    found = json.loads(target.read_text())
    assert found["batches"] == 40
    assert len(found["samples_bytes"]) == 21
    assert 0 < found["loaded_bytes"] <= found["warm_bytes"]

    result = CliRunner().invoke(bench, ["identity", str(folder), "--batches", "5"])
    assert result.exit_code == 0, result.output
    assert " 0 had other bits than the text alone" in result.output
    assert CliRunner().invoke(bench, ["memory", "--memory-limit", "much"]).exit_code == 2


def test_every_way_to_compute_attention_gives_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The contest refuses one that computes something else, before it is timed."""
    monkeypatch.setattr(attention, "HIDDEN_SIZES", {32: 4})
    monkeypatch.setattr(attention, "MIXES", {"mixed": (3, 8, 8, 70, 300)})
    matrix = attention.measure(1, lambda _: None)
    for row in matrix.rows:
        assert set(attention.CONTESTANTS) <= set(row.speed)
        assert row.speed[BASELINE] == 1.0
        assert OURS in row.speed
