"""The table of exports: random checkpoints of real families, exported, compared and timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from bertd.bundle import Precision
from bertd_bench.cli import bench
from bertd_bench.contestants import checkpoints
from bertd_bench.contestants.eager import BenchError
from bertd_bench.exports import document, exports, speed
from bertd_bench.harness import results
from bertd_export.checkpoint.families import FAMILIES
from click.testing import CliRunner

SHORT = ("8 tokens",)


def plan(
    subjects: Sequence[exports.ExportSubject],
    *precisions: Precision,
    cases: Sequence[str] = SHORT,
    rounds: int = 1,
) -> exports.ExportPlan:
    return exports.ExportPlan(subjects, precisions or ("fp32",), cases, rounds, threads=1)


def measured(chosen: exports.ExportPlan) -> exports.ExportTable:
    return exports.measure(chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task", "cases"),
    [
        ("deberta-v2", "fill-mask", ("16 mixed, one by one",)),
        ("mpnet", "question-answering", tuple(speed.CASES)),
    ],
)
def test_a_head_on_a_special_layout_in_fp32_and_int8(
    family: str, task: str, cases: tuple[str, ...]
) -> None:
    """The table has every case, once; a second family's is there to be compared with eager."""
    [chosen] = [known for known in exports.TASKS if known == task]
    subjects = exports.random_subjects([family], [chosen], "tiny")
    matrix = measured(plan(subjects, "fp32", "int8", cases=cases))
    fp32, int8 = matrix.rows
    assert not fp32.refused
    assert not int8.refused
    assert 0 < max(fp32.parity.values()) <= 1e-4
    assert int8.agreement is not None
    assert int8.agreement >= 0.99
    for row in matrix.rows:
        assert tuple(row.speed) == cases
        for found in row.speed.values():
            assert found.difference <= speed.TOLERANCE[row.precision]
            assert found.eager.first <= found.eager.median <= found.eager.third
            assert found.engine.calls >= 2
    table = document.to_markdown(matrix)
    assert f"| {family}, tiny | {task} | int8 |" in table
    assert "16 mixed, one by one" in table


def test_a_refusal_is_a_row_of_its_own_and_names_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "three-labels"
    checkpoints.save_random("bert", "text-classification", "tiny", folder)
    (folder / "tokenizer.json").unlink()
    matrix = measured(plan([exports.ExportSubject("mine", "text-ranking", folder)]))
    assert matrix.rows[0].refused
    assert str(tmp_path) not in matrix.model_dump_json()
    assert "Refused:" in document.to_markdown(matrix)


@pytest.mark.slow
def test_rows_are_kept_one_by_one(tmp_path: Path) -> None:
    """An interrupted run loses the row that it was at."""
    path = tmp_path / "rows.json"
    chosen = plan(exports.random_subjects(["bert"], ["feature-extraction"], "tiny"))

    def keep(matrix: exports.ExportTable) -> None:
        results.write(matrix, path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exports.measure(chosen, keep=keep)
    earlier = results.read(path, exports.ExportTable, "exports")
    assert len(earlier.rows) == 1
    row = earlier.rows[0]
    wild = {
        name: found.model_copy(
            update={"eager": found.eager.model_copy(update={"third": 9 * found.eager.median})}
        )
        for name, found in row.speed.items()
    }
    disturbed = earlier.model_copy(update={"rows": [row.model_copy(update={"speed": wild})]})
    assert "| ~" in document.to_markdown(disturbed)


def test_a_text_with_another_answer_is_not_timed() -> None:
    """One wrong text among many right ones is enough."""
    right = [{"logits": np.ones((1, 3), np.float32)} for _ in range(16)]
    wrong = [*right[:-1], {"logits": np.full((1, 3), 1.01, np.float32)}]
    assert speed.relative_difference(right, right) == 0
    difference = speed.relative_difference(wrong, right)
    assert difference == pytest.approx(0.01, rel=1e-3)
    speed.check(difference, "int8", "8 tokens")
    with pytest.raises(BenchError, match=r"8 tokens: the engine's answer differs .* by 1.0e-02"):
        speed.check(difference, "fp32", "8 tokens")
    assert speed.relative_difference([{"logits": right[0]["logits"] * np.nan}], right[:1]) == np.inf


def test_every_tested_family_has_random_weights() -> None:
    assert set(checkpoints.FAMILIES) == set(FAMILIES)


def test_a_word_that_is_no_choice_is_refused_with_the_choices() -> None:
    for option in ("--family", "--task", "--precision", "--size", "--cases"):
        done = CliRunner().invoke(bench, ["exports", option, "nothing"])
        assert done.exit_code == 2
        assert f"{option} nothing is not one of: " in done.output
