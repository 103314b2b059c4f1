"""A task over Parquet files on one machine, which goes on where it was stopped.

::

    files ──parts──> Part: neighbouring rows of a row group ──map──> part-….parquet, under its name
    _job.json: what the parts are of; a folder of another job is refused     once it is whole

A part has its name and its rows from the files alone, so that a later run makes those that are
missing and no other; what a run that was killed has begun is made again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertd_server.bulk.columns import TableError

_JOB, _DONE = "_job.json", "_SUCCESS"  # what reads a folder of Parquet leaves out such names
_TEMPORARY = ".{}.tmp"
_AT_ONCE = 2  # parts: one is read or written while another is computed
_FOOTER = 8  # bytes at a file's end: the length of its metadata, and a mark

Map = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows of a row group.

    Attributes:
        file: its number, from 0.
        group: the row group in it.
        start: the first row in that.
        rows: how many.
    """

    file: int
    group: int
    start: int
    rows: int

    @property
    def name(self) -> str:
        """Of the file that holds it; in the order of rows."""
        return f"part-{self.file:05}-{self.group:05}-{self.start:010}.parquet"


@dataclass(frozen=True, slots=True)
class JobStep:
    """How far a job is; all counts are of rows.

    Attributes:
        total: of the files.
        there: that an earlier run has written.
        written: by this one.
        errors: of both, that have an error in place of an answer.
    """

    total: int
    there: int
    written: int
    errors: int


def parts_of(groups: Sequence[Sequence[int]], most: int) -> list[Part]:
    """The parts of files.

    Args:
        groups: rows of each row group of each file.
        most: rows of a part; at least 1.
    """
    return [
        Part(file, group, start, min(most, rows - start))
        for file, sizes in enumerate(groups)
        for group, rows in enumerate(sizes)
        for start in range(0, rows, most)
    ]


def found_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: those of a folder are all Parquet files right in it.

    Raises:
        TableError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        inner = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        inner = [one for one in inner if not one.name.startswith(("_", "."))]
        if not inner:
            raise TableError(f"{path} has no files .parquet: name files, or a folder of them")
        found += inner
    return found


class FileJob:
    """Files, the folder for what becomes of them, and how they are cut."""

    def __init__(
        self,
        files: Sequence[Path],
        folder: Path,
        *,
        identity: Mapping[str, Any],
        rows_per_file: int,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Read the metadata of all files.

        Args:
            files: to read.
            folder: to write to.
            identity: what else makes answers what they are, as JSON has it.
            rows_per_file: at most, of those that are written.
            columns: to read; None for all.

        Raises:
            TableError: a file is not Parquet, or has other columns than the first.
        """
        self.files = files
        self.folder = folder
        self._columns = columns
        metadata = [_metadata(path) for path in files]
        self.schema = self._schema(metadata[0], files[0])
        for path, one in zip(files, metadata, strict=True):
            if self._schema(one, path) != self.schema:
                raise TableError(
                    f"{path} has other columns than {files[0]}: give files of one kind in one job"
                )
        self.parts = parts_of(
            [[one.row_group(n).num_rows for n in range(one.num_row_groups)] for one in metadata],
            rows_per_file,
        )
        self._identity = {
            **identity,
            "rows_per_file": rows_per_file,
            "columns": list(self.schema.names),
            "input": [{"file": path.name, "footer": _footer_hash(path)} for path in files],
        }

    def _schema(self, metadata: pq.FileMetaData, path: Path) -> pa.Schema:
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        if self._columns is None:
            return schema
        for name in self._columns:
            if name not in schema.names:
                raise TableError(f"{path} has no column {name!r}: it has {', '.join(schema.names)}")
        return pa.schema([field for field in schema if field.name in self._columns])

    def run(self, mapper: Map, error: str) -> Iterator[JobStep]:
        """Make the parts that are missing; each step is told of, beginning with what was there.

        Args:
            mapper: what becomes of a table.
            error: the column of errors that it gives.

        Raises:
            TableError: the folder is another job's, or another process is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._claimed():
            there = {part for part in self.parts if (self.folder / part.name).exists()}
            counts = Counter(there=sum(part.rows for part in there))
            counts["errors"] = sum(_errors(self.folder / part.name, error) for part in there)
            total = sum(part.rows for part in self.parts)

            def step() -> JobStep:
                return JobStep(total, counts["there"], counts["written"], counts["errors"])

            yield step()

            def make(part: Part, table: pa.Table) -> tuple[int, int]:
                made = mapper(table)
                self._write(part, made)
                return part.rows, len(made) - made.column(error).null_count

            missing = [part for part in self.parts if part not in there]
            for rows, errors in _in_turn(make, self._tables(missing)):
                counts["written"] += rows
                counts["errors"] += errors
                yield step()
            (self.folder / _DONE).touch()

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Keep the folder for this process, and for this job."""
        with (self.folder / _JOB).open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TableError(
                    f"{self.folder} is being written by another process: wait for it to end"
                ) from None
            file.seek(0)
            before = _read(file.read())
            if before is not None:
                self._compare(before)
            elif next(self.folder.glob("*.parquet"), None) is not None:
                raise TableError(
                    f"{self.folder} has files that no job of this kind wrote: name another one"
                )
            else:
                file.truncate(0)
                file.write(json.dumps(self._identity, indent=2))
                file.flush()
                os.fsync(file.fileno())
            for left in self.folder.glob(_TEMPORARY.format("part-*")):
                left.unlink()
            yield

    def _compare(self, before: Mapping[str, Any]) -> None:
        for name, value in self._identity.items():
            if before.get(name) != value:
                raise TableError(
                    f"{self.folder} is of a job with another {name.replace('_', ' ')}: "
                    "name another folder, or give what that job was given"
                )

    def _tables(self, missing: Sequence[Part]) -> Iterator[tuple[Part, pa.Table]]:
        """The rows of parts, read one row group after another."""
        wanted = set(missing)
        for (file, group), neighbours in groupby(self.parts, lambda part: (part.file, part.group)):
            parts = list(neighbours)
            if wanted.isdisjoint(parts):
                continue
            sizes = [part.rows for part in parts]
            with pq.ParquetFile(self.files[file]) as source:
                batches = source.iter_batches(
                    max(sizes), row_groups=[group], columns=self.schema.names
                )
                for part, table in zip(parts, _cut(batches, sizes), strict=True):
                    if part in wanted:
                        yield part, table.select(self.schema.names)

    def _write(self, part: Part, table: pa.Table) -> None:
        """Write a part; it has its name once it is whole on the disk."""
        temporary = self.folder / _TEMPORARY.format(part.name)
        with temporary.open("wb") as file:
            pq.write_table(table, file, use_dictionary=_repeating(table.schema))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.folder / part.name)


def _repeating(fields: Iterable[pa.Field], parent: str = "") -> list[str]:
    """Paths of columns, as Parquet has them, whose values may repeat: all but fractions.

    Those of vectors hardly do, and a dictionary of them is larger than they are.
    """
    paths: list[str] = []
    for field in fields:
        path, kind = f"{parent}{field.name}", field.type
        if pa.types.is_struct(kind):
            paths += _repeating(kind, f"{path}.")
        elif hasattr(kind, "value_field"):
            paths += _repeating([kind.value_field.with_name("element")], f"{path}.list.")
        elif not pa.types.is_floating(kind):
            paths.append(path)
    return paths


def _cut(batches: Iterator[pa.RecordBatch], sizes: Sequence[int]) -> Iterator[pa.Table]:
    """Rows in tables of these sizes, however they come."""
    kept: list[pa.RecordBatch] = []
    for size in sizes:
        while sum(map(len, kept)) < size:
            kept.append(next(batches))
        table = pa.Table.from_batches(kept)
        yield table.slice(0, size)
        kept = table.slice(size).to_batches()


def _in_turn(
    make: Callable[[Part, pa.Table], tuple[int, int]], tables: Iterator[tuple[Part, pa.Table]]
) -> Iterator[tuple[int, int]]:
    """What is made of tables, a few at once and no more in memory."""
    running: deque[Future[tuple[int, int]]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, "bertd-part") as pool:
        try:
            for part, table in tables:
                running.append(pool.submit(make, part, table))
                if len(running) > _AT_ONCE:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for one in running:
                one.cancel()


def _read(job: str) -> dict[str, Any] | None:
    """The identity of a job; None if it was not written in full."""
    try:
        found: dict[str, Any] = json.loads(job)
    except ValueError:
        return None
    return found


def _metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}") from error


def _footer_hash(path: Path) -> str:
    """Of a file's metadata: where its columns are, how large, with which values at their ends."""
    with path.open("rb") as file:
        file.seek(-_FOOTER, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-_FOOTER - length, os.SEEK_END)
        return sha256(file.read(length)).hexdigest()


def _errors(path: Path, column: str) -> int:
    """Rows of a part that have an error."""
    table = pq.read_table(path, columns=[column])
    return len(table) - int(table.column(0).null_count)
