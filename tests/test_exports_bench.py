"""The table of exports: random checkpoints of real families, exported and timed."""

from pathlib import Path

import pytest
from bertd_bench import checkpoints, exports, int8
from bertd_bench.cli import bench
from click.testing import CliRunner


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("deberta-v2", "text-classification"),
        ("deberta-v2", "fill-mask"),
        ("mpnet", "question-answering"),
        ("modernbert", "text-classification"),
    ],
)
def test_a_head_on_a_special_layout_in_fp32_and_int8(family: str, task: str) -> None:
    [chosen] = [known for known in exports.TASKS if known == task]
    matrix = exports.measure(
        exports.random_subjects([family], [chosen]),
        ["fp32", "int8"],
        size="tiny",
        threads=1,
        rounds=1,
        progress=lambda _: None,
    )
    fp32, int8 = matrix.rows
    assert not fp32.refused
    assert not int8.refused
    assert 0 < max(fp32.parity.values()) <= 1e-4
    assert int8.agreement is not None
    assert int8.agreement >= 0.99
    table = exports.to_markdown(matrix)
    assert f"| {family} | {task} | int8 |" in table


def test_a_refusal_is_a_row_of_its_own(tmp_path: Path) -> None:
    checkpoints.save_random("bert", "text-classification", "tiny", tmp_path / "three-labels")
    subject = exports.Subject("three-labels", "text-ranking", tmp_path / "three-labels")
    matrix = exports.measure(
        [subject], ["fp32"], size="tiny", threads=1, rounds=1, progress=lambda _: None
    )
    assert "one logit" in matrix.rows[0].refused
    assert "Refused:" in exports.to_markdown(matrix)


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
