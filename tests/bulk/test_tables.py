"""Tables through a model: the answers of its methods, row by row, and errors in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bertd.bundle import Task, read_manifest
from bertd_server import SyncModel, open_model_sync
from bertd_server.bulk import columns
from bertd_server.bulk.columns import TableError, calls
from bertd_server.bulk.tables import TableMapper, TablePlan
from bertd_server.inside import InvalidInput, RequestError, WrongTask
from bertd_server.inside.options import OpenOptions
from bertd_server.tokenization.reader import Input
from helpers.patience import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

QUICK: OpenOptions = {
    "warmup_seconds": 0,
    "calibration_seconds": 0.05,
    "lanes": 1,
    "lane_niceness": 0,
    "max_queue_seconds": PATIENCE,
}
TEXTS = ["the cat sat", None, "", "the cat " * 600, "a dog in rain"]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[SyncModel]:
    with open_model_sync(tiny_bundle, **QUICK) as model:
        yield model


def mapper(model: SyncModel, task: str = "embed", **options: Any) -> TableMapper:
    return TableMapper(model, TablePlan.of(model.manifest, task, **options))


def test_rows_without_an_answer_say_why_and_leave_the_others_alone(model: SyncModel) -> None:
    table = pa.table({"id": range(5), "body": TEXTS})
    found = mapper(model, text="body")(table)
    kind = found.schema.field("embedding").type
    assert kind == pa.list_(pa.float32(), model.manifest.dimensions)
    assert found.select(["id", "body"]).equals(table)
    errors = found["error"].to_pylist()
    assert [one and one.partition(":")[0] for one in errors] == [
        None,
        "null",
        "empty",
        "too_long",
        None,
    ]
    assert all("body" in one for one in errors if one)
    rows = found["embedding"].to_pylist()
    expected = model.embed(["the cat sat", "a dog in rain"])
    assert np.array_equal(np.array([rows[0], rows[4]], np.float32), expected)
    assert rows[1:4] == [None] * 3


@pytest.mark.parametrize("fixed", [True, False])
def test_a_table_may_be_cut_anywhere(
    model: SyncModel, monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    """Into tables, and into calls of a table; a table without rows has the same columns."""
    monkeypatch.setattr(columns, "_CALL_INPUTS", 2)
    table = pa.table({"text": [*TEXTS, *reversed(TEXTS)]})
    whole = mapper(model, fixed=fixed)(table)
    parts = [mapper(model, fixed=fixed)(table.slice(at, 3)) for at in range(0, 15, 3)]
    assert [len(one) for one in parts] == [3, 3, 3, 1, 0]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_vectors_have_the_numbers_that_were_asked_for(model: SyncModel) -> None:
    found = mapper(model, dimensions=16, output_dtype="ubinary")(pa.table({"text": TEXTS}))
    assert found.schema.field("embedding").type == pa.list_(pa.uint8(), 2)


def test_bytes_that_are_no_text_are_the_error_of_their_row(model: SyncModel) -> None:
    spoilt = pa.array([b"the cat", b"\xff", None], pa.binary()).view(pa.string())
    errors = mapper(model)(pa.table({"text": spoilt}))["error"].to_pylist()
    assert errors[0] is None
    assert errors[1].startswith("not_unicode")
    assert errors[2].startswith("null")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.null()])
def test_all_columns_of_texts_are_read(model: SyncModel, kind: pa.DataType) -> None:
    texts = pa.array([None, None] if pa.types.is_null(kind) else ["the cat", None], kind)
    assert mapper(model)(pa.table({"text": texts}))["error"].null_count == texts.null_count % 2


def test_a_dictionary_of_texts_is_read(model: SyncModel) -> None:
    texts = pa.array(["the cat", None, "the cat"]).dictionary_encode()
    assert mapper(model)(pa.table({"text": texts}))["error"].null_count == 2


PAIRS = [("the cat", "a mat the dog"), ("who?", "the cat sat"), ("the", "")]
Case = tuple[Task, str, tuple[str, ...], str, dict[str, Any]]
CASES: list[Case] = [
    ("question-answering", "answer", ("question", "context"), "answers", {"top_k": 2}),
]
SLOW_CASES: list[Case] = [  # each needs a model of its own
    ("fill-mask", "embed_sparse", ("text",), "values", {"max_active_dims": 3}),
    ("zero-shot-classification", "classify", ("text", "pair"), "labels", {}),
    ("zero-shot-classification", "classify", ("text",), "labels", {"top_k": 1}),
    ("zero-shot-classification", "classify_zero_shot", ("text",), "labels", {"labels": ["cat"]}),
    ("token-classification", "tag", ("text",), "entities", {}),
    ("fill-mask", "fill_mask", ("text",), "masks", {"top_k": 2}),
]


@pytest.mark.parametrize(
    ("task", "name", "roles", "column", "options"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)],
)
def test_every_task_says_what_its_method_says(  # noqa: PLR0913, PLR0917 - a row of the table
    task_bundle: Callable[[Task], Path],
    task: Task,
    name: str,
    roles: tuple[str, ...],
    column: str,
    options: dict[str, Any],
) -> None:
    with open_model_sync(task_bundle(task), **QUICK) as model:
        rows = [(first + " [MASK]", second) for first, second in PAIRS]
        given = {role: [row[place] for row in rows] for place, role in enumerate(roles)}
        named = {role: role for role in roles}
        found = mapper(model, name, **options, **named)(pa.table(given))
        inputs = rows if len(roles) > 1 else [first for first, _ in rows]
        replies = getattr(model, f"{name}_each")(inputs, **options)
    for reply, value, error in zip(
        replies, found[column].to_pylist(), found["error"].to_pylist(), strict=True
    ):
        if isinstance(reply.outcome, RequestError):
            assert (value, error.partition(":")[0]) == (None, reply.outcome.reason)
        elif name == "embed_sparse":
            assert np.array_equal(np.array(value, np.float32), reply.outcome.values)
        else:
            assert (value, error) == ([asdict(one) for one in reply.outcome], None)


@pytest.mark.slow
def test_documents_are_ranked_each_with_its_own_query(task_bundle: Callable[[Task], Path]) -> None:
    with open_model_sync(task_bundle("text-ranking"), **QUICK) as model:
        queries, documents = ["the cat", "who?", "the cat"], ["a mat", "the dog", "a mat"]
        table = pa.table({"q": queries, "d": documents})
        scores = mapper(model, "rank", query="q", document="d")(table)["score"].to_pylist()
        assert scores == [
            model.rerank(query, [document])[0].score
            for query, document in zip(queries, documents, strict=True)
        ]


def test_what_is_too_much_for_a_call_is_asked_row_by_row(
    task_bundle: Callable[[Task], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of a call are for callers; a row has no error for its neighbours."""
    monkeypatch.setattr("bertd_server.tasks.answering.MOST_SPANS", 100)
    table = pa.table({"question": ["who?"] * 6, "context": ["the cat sat"] * 6})
    with open_model_sync(task_bundle("question-answering"), **QUICK) as model:
        found = mapper(model, "answer", max_answer_tokens=5)(table)
    assert found["error"].null_count == 6


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ({"body": ["a"]}, {}, "no column 'text': name the one to read with text="),
        ({"text": [1]}, {}, "'text' is int64: give one of strings"),
        ({"text": ["a"], "error": ["b"]}, {}, "has a column 'error'"),
        ({"text": ["a"]}, {"ids": "id"}, "no column 'id'"),
        ({"text": ["a", "b"], "id": [1, None]}, {"ids": "id"}, "null in 1 of 2 rows"),
        ({"text": ["a", "b"], "id": [1, 1]}, {"ids": "id"}, "1 ids again"),
    ],
)
def test_a_table_that_is_not_in_order_is_refused(
    model: SyncModel, table: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(TableError, match=said):
        mapper(model, **options)(pa.table(table))


def test_a_plan_is_checked_before_a_row_is_read(model: SyncModel, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    with pytest.raises(TableError, match="no option 'txt': use text, long_text"):
        TablePlan.of(manifest, "embed", txt="body")
    with pytest.raises(TableError, match="no task 'embedd'"):
        TablePlan.of(manifest, "embedd")
    with pytest.raises(InvalidInput, match="dimensions is 9999"):
        TablePlan.of(manifest, "embed", dimensions=9999)
    with pytest.raises(WrongTask):
        mapper(model, "classify")


@given(st.lists(st.integers(0, 300_000), max_size=600))
def test_calls_are_small_and_leave_nothing_out(lengths: list[int]) -> None:
    inputs = [Input("x" * length) for length in lengths]
    found = [inputs[part] for part in calls(inputs)]
    assert [one for part in found for one in part] == inputs
    assert all(part for part in found)
    for part in found:
        assert len(part) <= 256
        assert len(part) == 1 or sum(len(one.text) for one in part) <= 250_000
