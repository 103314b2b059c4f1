"""The table of exports: random checkpoints of real families, exported and timed."""

from pathlib import Path

import pytest
from bertd_bench import checkpoints, exports


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
