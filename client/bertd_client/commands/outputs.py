"""Where a command's answers go.

::

    terminal            lines for people
    elsewhere           JSON lines: the fields of the input with those of the answer, or "error"
    --output X.jsonl    the same into a file
    --output X.npy      array (inputs, dimensions); rows without an answer are NaN, of bytes 0
    --output X.parquet  text, tokens, embedding (list of numbers), error; needs the extra [parquet]

A file is written beside its name and takes it once it is whole.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from bertd_client.commands.entries import shortened

if TYPE_CHECKING:
    from numpy.typing import NDArray

JsonObject = dict[str, Any]
Show = Callable[[JsonObject], Iterable[str]]
"""The lines below an input's heading."""

VECTORS = (".npy", ".parquet")
_ROWS = 1_024  # of a Parquet row group


class Output(ABC):
    """Takes records in order."""

    @abstractmethod
    def write(self, record: JsonObject) -> None:
        """Take one."""

    @abstractmethod
    def end(self) -> None:
        """All have come."""


class Lines(Output):
    """Lines for people."""

    def __init__(self, show: Show) -> None:
        self._show = show

    def write(self, record: JsonObject) -> None:
        """Print a heading and what was found."""
        if "error" in record:
            return  # it stands on standard error
        heading = next((value for value in record.values() if isinstance(value, str)), "")
        click.secho(printable(shortened(heading, 100)), bold=True)
        for line in self._show(record):
            click.echo(printable(f"  {line}").rstrip())

    def end(self) -> None:
        """Everything has been printed."""


class JsonLines(Output):
    """One object a line, on standard output or into a file."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file

    def write(self, record: JsonObject) -> None:
        """Write an object."""
        # What UTF-8 cannot express, the escapes of "backslashreplace" write as JSON does.
        line = json.dumps(record, ensure_ascii=False, default=_plain)
        click.echo(line.encode("utf-8", "backslashreplace"), file=self._file)

    def end(self) -> None:
        """Everything has been written."""


class Npy(Output):
    """One array for all vectors."""

    def __init__(self, file: IO[bytes], dtype: str) -> None:
        self._file = file
        self._dtype = dtype
        self._rows: list[NDArray[Any] | None] = []

    def write(self, record: JsonObject) -> None:
        """Keep a vector."""
        self._rows.append(record.get("embedding"))

    def end(self) -> None:
        """Write the array."""
        import numpy as np

        known = [row for row in self._rows if row is not None]
        shape = len(self._rows), len(known[0]) if known else 0
        array = np.full(shape, np.nan if self._dtype == "float32" else 0, self._dtype)
        for number, row in enumerate(self._rows):
            if row is not None:
                array[number] = row
        np.save(self._file, array)


class Parquet(Output):
    """A table, written a group of rows at a time."""

    def __init__(self, file: IO[bytes], dtype: str) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise click.ClickException(
                "Parquet needs the extra [parquet]: pip install 'bertd[parquet]'"
            ) from error
        columns = {
            "text": pa.string(),
            "tokens": pa.int32(),
            "embedding": pa.list_(pa.from_numpy_dtype(dtype)),
            "error": pa.string(),
        }
        self._schema = pa.schema(list(columns.items()))
        self._make = pa.Table.from_pydict
        # Numbers of vectors hardly repeat: a dictionary of them is larger than they are.
        repeating = [name for name in columns if name != "embedding"]
        self._writer = pq.ParquetWriter(file, self._schema, use_dictionary=repeating)
        self._records: list[JsonObject] = []

    def write(self, record: JsonObject) -> None:
        """Keep a row; write a full group."""
        text = record.get("text")
        if isinstance(text, str):
            record = {**record, "text": text.encode("utf-8", "replace").decode()}
        self._records.append(record)
        if len(self._records) >= _ROWS:
            self._flush()

    def end(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = {name: [r.get(name) for r in self._records] for name in self._schema.names}
        self._writer.write_table(self._make(columns, schema=self._schema))
        self._records = []


@contextmanager
def opened(path: Path | None, style: str, show: Show, dtype: str = "") -> Iterator[Output]:
    """The output of a command; a file takes its name if nothing was raised.

    Args:
        path: of the file; none for standard output.
        style: "text" or "jsonl", for standard output.
        show: for text.
        dtype: of vectors, in files of vectors.
    """
    if path is None:
        yield Lines(show) if style == "text" else JsonLines()
        return
    kinds: dict[str, Callable[[IO[bytes], str], Output]] = {".npy": Npy, ".parquet": Parquet}
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            kind = kinds.get(path.suffix)
            output = JsonLines(file) if kind is None else kind(file, dtype)
            yield output
            output.end()
        os.replace(part, path)  # noqa: PTH105 - says that it replaces
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def place(one: JsonObject) -> str:
    """Where something stands in a text, in code points."""
    return f"{one['start']:>4}-{one['end']:<4}"


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 cannot express."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    """A NumPy array as JSON has it."""
    return value.tolist()
