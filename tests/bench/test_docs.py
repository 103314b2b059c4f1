"""Measured parts of documents: what `bertd bench docs` would write is what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bertd_bench import docs as writing
from bertd_bench.cli import bench
from bertd_bench.docs import RESULTS, Section
from click.testing import CliRunner, Result
from helpers.paths import ROOT


def docs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench, ["docs", *map(str, arguments)])


def test_every_measured_part_says_what_the_committed_results_say() -> None:
    checked = docs("--check", "--root", ROOT)
    assert checked.exit_code == 0, checked.output


def test_every_comment_of_a_document_has_its_section() -> None:
    """And a section its comment: nothing is measured that no command writes again."""
    wanted = sorted((section.document, section.name) for section in writing.sections())
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in documents
        for name in writing.names(path.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == wanted


def test_a_result_that_is_committed_is_shown() -> None:
    """Whatever a command writes into benchmarks/results stands in a document."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    for path in (ROOT / RESULTS).glob("*.json*"):
        assert any(f"{RESULTS}/{path.name}" in text for text in texts), path.name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the documents, beside the committed results."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return tmp_path


@pytest.mark.slow
def test_what_was_changed_by_hand_is_found_and_repaired(project: Path) -> None:
    document = project / "docs/deployment.md"
    text = document.read_text(encoding="utf-8")
    document.write_text(text.replace(writing.END, f"by hand\n{writing.END}"), encoding="utf-8")
    checked = docs("--check", "--root", project)
    assert checked.exit_code == 1
    assert "stale: docs/deployment.md; `bertd bench docs` writes them" in checked.output
    written = docs("--root", project)
    assert "docs/deployment.md is rewritten\n" in written.output
    assert "README.md is unchanged\n" in written.output
    assert document.read_text(encoding="utf-8") == text


def test_a_document_without_its_comments_is_left_alone(project: Path) -> None:
    """Nothing is guessed: the command says which lines it needs."""
    (project / "README.md").write_text("no section here\n", encoding="utf-8")
    written = docs("--root", project)
    assert written.exit_code == 1
    assert "README.md, comparison: the document needs one pair of lines" in written.output
    assert writing.begin("comparison") in written.output
    assert (project / "README.md").read_text(encoding="utf-8") == "no section here\n"


def test_what_is_no_result_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{writing.begin('x')}\n{writing.END}\n", encoding="utf-8")

    def refuse(results: Path) -> str:
        raise ValueError(f"{results.name}/x.json is not a result of `bertd bench x`")

    with pytest.raises(ValueError, match=r"README\.md, x: results/x\.json is not a result"):
        writing.rewritten(tmp_path, tmp_path / "results", [Section("README.md", "x", refuse)])


def test_parts_are_told_apart_by_name_and_may_not_hold_another() -> None:
    text = f"{writing.begin('a')}\nold\n{writing.END}\n{writing.begin('b')}\nkept\n{writing.END}\n"
    changed = writing.replaced(text, "a", "new")
    assert changed.split(writing.begin("b")) == [
        f"{writing.begin('a')}\n\nnew\n\n{writing.END}\n",
        f"\nkept\n{writing.END}\n",
    ]
    for wrong in (text.replace(writing.END, "", 1), text + text, "nothing"):
        with pytest.raises(ValueError, match="one pair of lines"):
            writing.replaced(wrong, "a", "new")
