"""Bundles whose hashes are right and whose parts do not fit each other: one line, and no server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bertd.bundle import (
    GRAPH_NAME,
    TOKENIZER_NAME,
    BundleError,
    Task,
    fit,
    graphs,
    read_manifest,
    write_manifest,
)
from bertd_export.verification.commands import inspect
from bertd_server.cli import serve
from bertd_server.models import startup
from bertd_server.models.startup import ModelOptions, StartOptions
from click.testing import CliRunner
from helpers.tampering import sign
from onnx import numpy_helper

QUICK = ModelOptions(starting=StartOptions(warmup_seconds=0, calibration_seconds=0.02))
FLAGS = ["--http-address", "off", "--address", "127.0.0.1:0"]
TaskBundle = Callable[[Task], Path]


@pytest.fixture
def copied(task_bundle: TaskBundle, tmp_path: Path) -> Callable[[Task], Path]:
    """A bundle of a task that a test may spoil."""

    def copy(task: Task) -> Path:
        shutil.copytree(task_bundle(task), tmp_path / "bundle")
        return tmp_path / "bundle"

    return copy


def claim(bundle: Path, **fields: Any) -> Path:
    """Make the manifest say something else."""
    write_manifest(bundle, read_manifest(bundle).model_copy(update=fields))
    return bundle


def refusal(bundle: Path) -> str:
    """Why it is not loaded: one line, before anything is served."""
    with pytest.raises(BundleError) as caught:
        startup.load(bundle, QUICK)
    words = str(caught.value)
    assert "export the model again" in words
    assert "\n" not in words
    return words


@pytest.mark.parametrize(
    "task",
    [
        "feature-extraction",
        pytest.param("text-classification", marks=pytest.mark.slow),
        pytest.param("text-ranking", marks=pytest.mark.slow),
        pytest.param("token-classification", marks=pytest.mark.slow),
        "question-answering",
        pytest.param("fill-mask", marks=pytest.mark.slow),
        pytest.param("zero-shot-classification", marks=pytest.mark.slow),
    ],
)
def test_an_honest_bundle_of_each_task_is_loaded(task: Task, task_bundle: TaskBundle) -> None:
    startup.load(task_bundle(task), QUICK)


@pytest.mark.parametrize(
    ("task", "claims", "words"),
    [
        ("feature-extraction", {"max_tokens": 10**9}, "max_tokens is 1000000000, the graph has"),
        ("feature-extraction", {"position_offset": 1}, "positions for 65 tokens"),
        ("feature-extraction", {"vocab_size": 10**6}, "vocab_size is 1000000, the graph embeds"),
        ("feature-extraction", {"type_vocab_size": 3}, "type_vocab_size is 3, the graph has 2"),
        ("feature-extraction", {"unnumbered_token_id": 3}, "position_offset is 0"),
        ("feature-extraction", {"default_prompt_name": "x"}, "'x' is not among the prompts"),
        ("feature-extraction", {"dimensions": 31}, "[1, 32], and [1, 31] by dimensions (31)"),
        ("feature-extraction", {"hidden_size": 64}, "by hidden_size (64)"),
        ("text-classification", {"labels": ("a", "b")}, "by labels (2 names)"),
        ("token-classification", {"labels": ("a", "b")}, "by labels (2 names)"),
        ("zero-shot-classification", {"entailment_label": 3}, "entailment_label is 3, of 3 labels"),
        ("zero-shot-classification", {"contradiction_label": 7}, "contradiction_label is 7, of 3"),
        ("fill-mask", {"mask_token_id": 10**6}, "mask_token_id is 1000000, of"),
    ],
)
def test_a_manifest_that_lies_is_refused_by_its_field(
    task: Task, claims: dict[str, Any], words: str, copied: Callable[[Task], Path]
) -> None:
    assert words in refusal(claim(copied(task), **claims))


def test_a_classifier_served_as_a_ranker_is_refused(copied: Callable[[Task], Path]) -> None:
    bundle = claim(copied("text-classification"), task="text-ranking", activation="sigmoid")
    assert "by the task (text-ranking)" in refusal(bundle)


def test_outputs_that_count_otherwise_are_refused(copied: Callable[[Task], Path]) -> None:
    """Rows of tokens that are said to be of texts would be those of somebody else's text."""
    bundle = claim(copied("token-classification"), outputs={"logits": "sequences"})
    assert "logits of a text of" in refusal(bundle)


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(
    copied: Callable[[Task], Path],
) -> None:
    bundle = copied("feature-extraction")
    path = bundle / TOKENIZER_NAME
    held = json.loads(path.read_text(encoding="utf-8"))
    held["model"]["vocab"]["beyond"] = 5_000
    path.write_text(json.dumps(held), encoding="utf-8")
    sign(bundle)
    assert "the tokenizer makes token 5000, the graph embeds" in refusal(bundle)


def test_a_graph_whose_answers_are_not_finite_is_refused(copied: Callable[[Task], Path]) -> None:
    bundle = copied("text-classification")
    path = bundle / GRAPH_NAME
    graph = onnx.load(path, load_external_data=False)
    (output,) = (node for node in graph.graph.node if "logits" in node.output)
    output.output[:] = ["before"]
    nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    graph.graph.initializer.append(nan)
    graph.graph.node.add(op_type="Add", input=["before", "nan"], output=["logits"])
    path.write_bytes(graph.SerializeToString())
    sign(bundle)
    assert "is not of finite float32 numbers" in refusal(bundle)


def test_a_graph_that_fails_as_it_runs_is_one_line(copied: Callable[[Task], Path]) -> None:
    """A table that no rule finds: its rows are too few only when it is read."""
    bundle = copied("feature-extraction")
    path = bundle / GRAPH_NAME
    graph = onnx.load(path, load_external_data=False)
    gather = next(
        node
        for node in graph.graph.node
        if node.op_type == "Gather" and "position" in node.input[0]
    )
    one = numpy_helper.from_array(np.array(10_000, np.int64), "far")
    graph.graph.initializer.append(one)
    far = onnx.helper.make_node("Add", [gather.input[1], "far"], ["farther"])
    graph.graph.node.insert(list(graph.graph.node).index(gather), far)
    gather.input[1] = "farther"
    path.write_bytes(graph.SerializeToString())
    sign(bundle)
    assert "fails as it runs" in refusal(bundle)


def test_serve_says_one_line_and_exits(copied: Callable[[Task], Path]) -> None:
    bundle = claim(copied("feature-extraction"), max_tokens=10**9)
    result = CliRunner().invoke(serve, [str(bundle), *FLAGS])
    assert result.exit_code == 1
    assert "max_tokens is 1000000000" in result.output
    assert "Traceback" not in result.output


def test_inspect_says_what_does_not_fit(copied: Callable[[Task], Path]) -> None:
    bundle = claim(copied("feature-extraction"), max_tokens=10**9)
    result = CliRunner().invoke(inspect, [str(bundle)])
    assert result.exit_code == 1
    assert "max_tokens is 1000000000" in result.output


@pytest.mark.parametrize(
    ("claims", "rows", "words"),
    [
        ({"max_tokens": 2**20}, {}, []),
        ({"max_tokens": 2**20 + 1}, {}, ["max_tokens is 1048577, at most 1048576 is taken"]),
        ({}, {"position_ids": 66}, []),
        ({"position_offset": 2}, {"position_ids": 66}, ["max_tokens is 66, the graph has"]),
        ({}, {"token_type_ids": 1}, ["type_vocab_size is 2, the graph has 1 token types"]),
        (
            {"entailment_label": 1, "contradiction_label": 1, "labels": ("a", "b")},
            {},
            ["contradiction_label is entailment_label, 1"],
        ),
    ],
)
def test_what_fits_is_a_matter_of_numbers(
    claims: dict[str, Any], rows: dict[str, int], words: list[str], task_bundle: TaskBundle
) -> None:
    """Without a table, as with rotary positions, there is only a bound."""
    manifest = read_manifest(task_bundle("feature-extraction")).model_copy(update=claims)
    found = list(fit.misfits(manifest, rows, manifest.vocab_size - 1))
    assert len(found) == len(words)
    assert all(said in one for said, one in zip(words, found, strict=True))


def test_tables_are_found_behind_what_keeps_their_ids(task_bundle: TaskBundle) -> None:
    folder = task_bundle("feature-extraction")
    manifest = read_manifest(folder)
    assert graphs.table_rows(folder) == {
        "input_ids": manifest.vocab_size,
        "token_type_ids": 2,
        "position_ids": 66,
    }
