"""Columns of texts, found by name and checked, as the inputs of a task.

A row that cannot be asked about does not stop the others: it has the reason in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import pyarrow as pa

from bertd_server.errors import InvalidInput
from bertd_server.tokenization.reader import Input

Row = Input | InvalidInput
_CALL_INPUTS, _CALL_CHARACTERS = 256, 250_000


class TableError(ValueError):
    """A table, or what is asked of it, is not in order; the message names the column."""


def check_names(schema: pa.Schema, needed: Mapping[str, str], added: Sequence[str]) -> None:
    """Check that a table has the columns of a task, and has room for those that it gets.

    Args:
        schema: of the table.
        needed: columns of texts, by what the task calls them.
        added: columns that the task gives.

    Raises:
        TableError: a column is missing, there twice, or of a type that is no text.
    """
    names = schema.names
    for role, name in needed.items():
        if names.count(name) != 1:
            said = "has no column" if name not in names else "has several columns"
            raise TableError(f"the table {said} {name!r}: name the one to read with {role}=")
        kind = schema.field(name).type
        if not _is_text(kind):
            raise TableError(f"the column {name!r} is {kind}: give one of strings")
    for name in added:
        if name in names:
            raise TableError(
                f"the table has a column {name!r}, which is to hold what is computed: rename it"
            )


def check_ids(table: pa.Table, name: str) -> None:
    """Check that each row can be told from all others of its table.

    Whoever notes the ids of rows that are done loses rows, or writes them again, where they are
    null or the same.

    Raises:
        TableError: the column is missing, has nulls, or has an id twice.
    """
    if name not in table.column_names:
        raise TableError(f"the table has no column {name!r}: name the one of ids with ids=")
    column = table.column(name)
    if column.null_count:
        raise TableError(
            f"the column {name!r} is null in {column.null_count} of {len(column)} rows: "
            "give each row an id"
        )
    repeated = len(column) - len(column.unique())
    if repeated:
        raise TableError(f"the column {name!r} has {repeated} ids again: give each row its own")


def rows_of(table: pa.Table, needed: Mapping[str, str]) -> list[Row]:
    """The inputs of a table's rows, in order; an error where a row has none.

    Args:
        table: with the columns of :func:`check_names`.
        needed: one column, or two for pairs.
    """
    names = list(needed.values())
    found = [_texts(table.column(name)) for name in names]
    return [_row(names, texts) for texts in zip(*found, strict=True)]


def calls(inputs: Sequence[Input]) -> Iterator[slice]:
    """Inputs in groups of neighbours, each small enough for the queues of a model."""
    ends, characters = [0], 0
    for place, one in enumerate(inputs):
        full = place - ends[-1] >= _CALL_INPUTS or characters + one.characters > _CALL_CHARACTERS
        if full and place > ends[-1]:
            ends.append(place)
            characters = 0
        characters += one.characters
    for begin, end in pairwise([*ends, len(inputs)]):
        if end > begin:
            yield slice(begin, end)


def _row(names: Sequence[str], texts: Sequence[str | InvalidInput | None]) -> Row:
    for name, text in zip(names, texts, strict=True):
        if isinstance(text, InvalidInput):
            return text
        if text is None:
            return InvalidInput(f"{name} is null: give a text", field=name, reason="null")
    pair = str(texts[1]) if len(texts) > 1 else None
    return Input(str(texts[0]), pair, names[0], names[-1])


def _texts(column: pa.ChunkedArray) -> list[str | InvalidInput | None]:
    try:
        found: list[str | InvalidInput | None] = column.to_pylist()
    except UnicodeDecodeError:  # one row spoils the column; Arrow does not check what it reads
        plain = column.cast(pa.large_string()) if _is_dictionary(column.type) else column
        return [_decoded(value) for value in plain.cast(pa.large_binary()).to_pylist()]
    return found


def _decoded(value: bytes | None) -> str | InvalidInput | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return InvalidInput(f"the text is not UTF-8 ({error})", reason="not_unicode")


def _is_dictionary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if _is_dictionary(kind) else kind
    of = pa.types
    return bool(
        of.is_string(value)
        or of.is_large_string(value)
        or of.is_string_view(value)
        or of.is_null(value)
    )
