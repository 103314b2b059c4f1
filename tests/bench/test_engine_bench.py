"""The engine's benchmark runs on a tiny bundle, part by part, and says what it found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bertd_bench.cli import bench
from bertd_bench.engine import batches, document
from bertd_bench.engine.results import EngineReport
from click.testing import CliRunner
from helpers.paths import ROOT


def test_random_batches_keep_to_their_limits() -> None:
    rng = np.random.default_rng(0)
    drawn = [batches.random_lengths(rng, 100, 300) for _ in range(300)]
    assert all(0 < len(lengths) <= 64 and sum(lengths) <= 300 for lengths in drawn)
    assert {max(lengths) > 64 for lengths in drawn} == {True, False}
    assert max(map(max, drawn)) <= 100


def test_memory_and_bits_of_a_tiny_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    """Both parts finish, and are written; the third was not asked for."""
    target = tmp_path / "engine.json"
    arguments = [str(tiny_bundle), "--part", "memory", "--part", "bits", "--batches", "40"]
    result = CliRunner().invoke(bench, ["engine", *arguments, "--json", str(target)])
    assert result.exit_code == 0, result.output
    found = EngineReport.model_validate_json(target.read_bytes())
    assert found.memory is not None
    assert found.memory.batches == 40
    assert len(found.memory.samples_bytes) == 21
    assert found.memory.first_bytes > 0
    assert found.memory.warm_bytes > 0
    assert found.identity is not None
    assert found.identity.different == 0
    assert " 0 had other bits than the text alone" in result.output
    assert found.padding == []
    arguments = ["engine", "--memory-limit", "much"]
    assert CliRunner().invoke(bench, arguments).exit_code == 2


def test_committed_results_become_tables() -> None:
    path = ROOT / "benchmarks" / "results" / "engine-minilm.json"
    text = document.render(EngineReport.model_validate_json(path.read_bytes()))
    for head in ("| mixed / equal |", "| lanes / wide, batches a second |", "| share of operators"):
        assert head in text
    assert "MiB at most." in text
