"""int8 against stock dynamic int8: every contestant runs, and what cannot is refused."""

from pathlib import Path

from bertd_bench.cli import bench
from bertd_bench.contestants import checkpoints
from bertd_bench.exports import int8
from click.testing import CliRunner


def test_int8_is_compared_with_stock(tmp_path: Path) -> None:
    path = tmp_path / "int8.json"
    arguments = ["int8", "--random", "tiny", "--rounds", "1", "--threads", "1", "--json", str(path)]
    outcome = CliRunner().invoke(bench, arguments)
    assert outcome.exit_code == 0, outcome.output
    result = int8.Comparison.model_validate_json(path.read_bytes())
    found = {one.name: one for one in result.contestants}
    assert set(found) == {int8.EAGER, int8.FP32, int8.OURS, *int8.STOCK}
    assert found[int8.OURS].neighbours == found[int8.FP32].neighbours == 0
    assert min(found[name].neighbours or 0 for name in int8.STOCK) > 0
    assert (found[int8.OURS].mean_cosine or 0) > 0.99
    assert f"| {int8.OURS} | 1.00x" in outcome.output


def test_what_int8_cannot_compare_is_refused(tmp_path: Path) -> None:
    checkpoints.save_random("bert", "text-classification", "tiny", tmp_path / "labels")
    outcome = CliRunner().invoke(bench, ["int8", "--checkpoint", str(tmp_path / "labels")])
    assert outcome.exit_code == 1
    assert "no sentence embeddings" in outcome.output
    outcome = CliRunner().invoke(bench, ["int8", "--random", "huge"])
    assert outcome.exit_code == 2
