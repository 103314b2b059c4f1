"""Parquet files through a map: stopped anywhere, each row is written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bertd_client.commands.embedding import embed
from bertd_server.bulk.columns import TableError
from bertd_server.bulk.files import FileJob, JobStep, Part, found_files, parts_of
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st


class Stopped(Exception):
    """As if the process had been killed in a part."""


def upper(table: pa.Table) -> pa.Table:
    """A map with an error in each row whose text is null."""
    error = pc.if_else(pc.is_null(table["text"]), "null", pa.scalar(None, pa.string()))
    return table.append_column("upper", pc.utf8_upper(table["text"])).append_column("error", error)


def stopping(after: int) -> Callable[[pa.Table], pa.Table]:
    """The same, which fails after some parts."""
    left = iter(range(after))

    def mapper(table: pa.Table) -> pa.Table:
        if next(left, None) is None:
            raise Stopped
        return upper(table)

    return mapper


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 50 rows in groups of 20; every tenth text is null."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for number, path in enumerate(paths):
        ids = range(number * 50, number * 50 + 50)
        texts = [None if one % 10 == 9 else f"text {one}" for one in ids]
        pq.write_table(pa.table({"id": ids, "text": texts, "more": texts}), path, row_group_size=20)
    return paths


def job(files: list[Path], folder: Path, rows: int = 6, **options: Any) -> FileJob:
    return FileJob(files, folder, identity={"bundle": "x"}, rows_per_file=rows, **options)


@pytest.mark.parametrize("after", [0, 1, 7, 15])
def test_a_job_goes_on_where_it_was_stopped(files: list[Path], tmp_path: Path, after: int) -> None:
    folder = tmp_path / "out"
    with pytest.raises(Stopped):
        list(job(files, folder).run(stopping(after), "error"))
    assert not (folder / "_SUCCESS").exists()
    (folder / ".part-00000-00000-0000000000.parquet.tmp").write_bytes(b"half")
    before = len([*folder.glob("*.parquet")])
    assert before <= after
    steps = list(job(files, folder).run(upper, "error"))
    assert steps[0].there + steps[-1].written == 100
    assert steps[-1].errors == 10
    assert len(steps) - 1 == len(job(files, folder).parts) - before
    found = pq.read_table(folder)
    assert found.equals(upper(pq.read_table(files).select(found.column_names[:3])))
    assert sorted(one.name for one in folder.glob("[._]*")) == ["_SUCCESS", "_job.json"]
    again = list(job(files, folder).run(upper, "error"))
    assert again == [JobStep(total=100, there=100, written=0, errors=10)]


def test_columns_that_nobody_wants_are_not_read(files: list[Path], tmp_path: Path) -> None:
    made = job(files, tmp_path / "out", columns=["id", "text"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_job.json").write_text('{"bundle": ')  # of a run that was killed in it
    list(made.run(upper, "error"))
    assert pq.read_table(tmp_path / "out").column_names == ["id", "text", "upper", "error"]


def test_numbers_with_fractions_have_no_dictionary(files: list[Path], tmp_path: Path) -> None:
    """A dictionary of vectors is larger than they are; names repeat."""
    numbers = pa.array([[0.5, 1.5]] * 3, pa.list_(pa.float32(), 2))
    entity = pa.struct({"label": pa.string(), "score": pa.float32(), "vectors": numbers.type})
    entities = pa.array([[{"label": "PER", "score": 0.5, "vectors": [1, 2]}]] * 3, pa.list_(entity))

    def mapper(table: pa.Table) -> pa.Table:
        more = {"embedding": numbers, "entities": entities}
        columns = [(name, column.slice(0, len(table))) for name, column in more.items()]
        for name, column in columns:
            table = table.append_column(name, column)
        return table.append_column("error", pa.nulls(len(table), pa.string()))

    list(job(files, tmp_path / "out", rows=3).run(mapper, "error"))
    group = pq.read_metadata(next((tmp_path / "out").glob("*.parquet"))).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    without = [one.path_in_schema for one in columns if "RLE_DICTIONARY" not in one.encodings]
    assert without == [
        "embedding.list.element",
        "entities.list.element.score",
        "entities.list.element.vectors.list.element",
    ]


def test_a_folder_is_one_jobs(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    running = job(files, folder).run(upper, "error")
    next(running)
    with pytest.raises(TableError, match="being written by another process"):
        next(job(files, folder).run(upper, "error"))
    assert list(running)
    for other in (job(files, folder, rows=7), job(files[:1], folder)):
        with pytest.raises(TableError, match=r"of a job with another (rows per file|input)"):
            next(other.run(upper, "error"))
    (files[0].parent / "other").mkdir()
    pq.write_table(pa.table({"a": [1]}), files[0].parent / "other" / "x.parquet")
    with pytest.raises(TableError, match="files that no job of this kind wrote"):
        next(job(files, files[0].parent / "other").run(upper, "error"))


def test_files_that_do_not_go_together_are_refused(files: list[Path], tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1]}), files[1])
    with pytest.raises(TableError, match=r"b\.parquet has other columns than .*a\.parquet"):
        job(files, tmp_path / "out")
    with pytest.raises(TableError, match=r"a\.parquet has no column 'body': it has id, text, more"):
        job(files, tmp_path / "out", columns=["body"])
    files[0].write_bytes(b"no Parquet at all")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        job(files, tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(TableError, match=r"no files \.parquet"):
        found_files([tmp_path / "none"])


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=4), st.integers(1, 12))
def test_parts_cover_each_row_once(groups: list[list[int]], most: int) -> None:
    parts = parts_of(groups, most)
    rows = [
        (part.file, part.group, row)
        for part in parts
        for row in range(part.start, part.start + part.rows)
    ]
    assert rows == [
        (file, group, row)
        for file, sizes in enumerate(groups)
        for group, count in enumerate(sizes)
        for row in range(count)
    ]
    assert all(0 < part.rows <= most for part in parts)
    assert sorted(part.name for part in parts) == [part.name for part in parts]


def test_names_say_where_rows_are_from() -> None:
    assert Part(3, 0, 8192, 10).name == "part-00003-00000-0000008192.parquet"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(embed, [*map(str, arguments)])


def test_the_command_writes_vectors_of_files(
    tiny_bundle: Path, files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    chosen = ("--input", tmp_path, "--output", folder, "--bundle", tiny_bundle, "--lanes", 1)
    first = run(*chosen, "--columns", "id", "--dimensions", 8)
    assert first.exit_code == 1  # ten rows have no answer
    assert first.stderr == f"{folder}: 100 rows, 100 written now, 0 before, 10 with an error\n"
    found = pq.read_table(folder)
    assert found.schema.names == ["id", "text", "embedding", "error"]
    assert found["id"].to_pylist() == list(range(100))
    assert found.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32()), 8)
    other = run(*chosen, "--columns", "id")
    assert other.exit_code == 1
    assert "of a job with another options" in other.stderr
    assert len(files) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--lanes", "2"], "--lanes goes with --input"),
        (["--input", "."], "--input needs --output DIR"),
        (["a", "--input", ".", "--output", "x"], "give no texts as arguments"),
        (["--input", ".", "--address", "a:1"], "--address is for a server"),
        (["--input", ".", "--per-token"], "--per-token does not go with --input"),
        (["--input", ".", "--output", "pyproject.toml"], "pyproject.toml is a file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
