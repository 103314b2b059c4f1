"""Every RPC that takes inputs, as a method and as a command: the tests of all faces go through it.

A row of ``CALLS`` is asked of a real server by both clients and in process, one of ``COMMANDS`` by
the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import click
from bertd.bundle import Task
from bertd_client.commands.embedding import embed
from bertd_client.commands.pairs import answer, rerank
from bertd_client.commands.texts import classify, fill, tag, zero_shot
from bertd_client.commands.tokens import count, tokenize

PERSON = "the cat sat 안녕 🙂 the dog"
CONTEXT = "안녕 🙂 the dog sat on a mat"


class Asked(NamedTuple):
    """A method with good inputs, of which the second of `bad` has no answer."""

    task: Task
    method: str
    arguments: tuple[Any, ...]
    bad: tuple[Any, ...]
    options: Mapping[str, Any] = MappingProxyType({})


TEXTS = ["the cat sat", "안녕 🙂 the dog"]
BAD = ["the cat", " ", "a mat"]
CALLS = [
    Asked("feature-extraction", "embed", (TEXTS,), (BAD,), {"long_text": "window", "stride": 2}),
    Asked(
        "feature-extraction",
        "embed",
        (TEXTS,),
        (BAD,),
        {"dimensions": 10, "output_dtype": "int8", "ranges": [[-1] * 10, [2] * 10]},
    ),
    Asked("feature-extraction", "embed_tokens", (TEXTS,), (BAD,), {"truncation_side": "left"}),
    Asked(
        "zero-shot-classification",
        "classify",
        ([("the cat", "a mat"), "the sea"],),
        (BAD,),
        {"top_k": 2, "score_function": "sigmoid", "priority": "bulk"},
    ),
    Asked(
        "zero-shot-classification",
        "classify_zero_shot",
        (TEXTS, ["cat", "dog"]),
        (BAD, ["cat"]),
        {"multi_label": True, "hypothesis_template": "on {}."},
    ),
    Asked(
        "text-ranking",
        "rerank",
        ("the cat", ["a mat", "the sea", "the cat"]),
        ("the cat", BAD),
        {"top_n": 2, "score_function": "none", "long_text": "truncate", "prompt_name": ""},
    ),
    Asked("token-classification", "tag", ([PERSON],), (BAD,), {"aggregation": "none"}),
    Asked(
        "question-answering",
        "answer",
        ([("the cat", "the dog sat on a mat")],),
        ([("the cat", "a mat"), ("the cat", ""), ("a", "mat")],),
        {"top_k": 3, "max_answer_tokens": 4, "allow_no_answer": True},
    ),
    Asked("fill-mask", "fill_mask", (["the [MASK] sat"],), (["[MASK]", "a mat", "a [MASK]"],)),
    Asked(
        "fill-mask",
        "fill_mask",
        (["the [MASK] sat"],),
        (["[MASK]", "a mat", "a [MASK]"],),
        {"targets": ["dog", "cat"]},
    ),
    Asked("fill-mask", "embed_sparse", (TEXTS,), (BAD,), {"max_active_dims": 7}),
    Asked(
        "fill-mask",
        "tokenize",
        ([PERSON, ("the", "cat")],),
        (["", "a" * 100_001, "a mat"],),
        {"special_tokens": False},
    ),
    Asked(
        "fill-mask",
        "count_tokens",
        (["", PERSON, ("the", "cat")],),
        (["", ("a", "b" * 100_001), "a mat"],),
    ),
    Asked("fill-mask", "detokenize", ([[1, 5], []],), ([[], [7, 10**6], [5]],)),
]

# command, task, texts and options, the same as a JSON line, what an answer has, a word of its text
COMMANDS: list[tuple[click.Command, Task, list[str], dict[str, Any], str, str]] = [
    (embed, "feature-extraction", ["the cat"], {"text": "the cat"}, "embedding", "32 values"),
    (
        embed,
        "feature-extraction",
        ["the cat", "--per-token"],
        {"text": "the cat"},
        "embeddings",
        "[CLS]",
    ),
    (
        embed,
        "feature-extraction",
        ["the cat", "--dimensions", "12", "--output-dtype", "ubinary"],
        {"text": "the cat"},
        "embedding",
        "2 values",
    ),
    (
        embed,
        "fill-mask",
        ["the cat", "--sparse", "--max-active-dims", "3"],
        {"text": "the cat"},
        "values",
        "3 of ",
    ),
    (
        classify,
        "zero-shot-classification",
        ["the cat\ta mat", "--pairs", "--top-k", "2"],
        {"text": "the cat", "text_pair": "a mat"},
        "labels",
        "  0.",
    ),
    (
        zero_shot,
        "zero-shot-classification",
        ["the cat", "--label", "sea", "--label", "dog", "--multi-label"],
        {"text": "the cat"},
        "labels",
        "sea",
    ),
    (
        rerank,
        "text-ranking",
        ["the sea", "the cat", "a mat", "--top-k", "1"],
        {"query": "the sea", "documents": ["the cat", "a mat"]},
        "ranking",
        "0.",
    ),
    (
        tag,
        "token-classification",
        [CONTEXT, "--aggregation", "none", "--include-outside"],
        {"text": CONTEXT},
        "entities",
        "안녕",
    ),
    (
        answer,
        "question-answering",
        ["the cat", "--context", CONTEXT, "--top-k", "2"],
        {"question": "the cat", "context": CONTEXT},
        "spans",
        "-",
    ),
    (fill, "fill-mask", ["the [MASK]"], {"text": "the [MASK]"}, "masks", "mask 1"),
    (
        fill,
        "fill-mask",
        ["the [MASK]", "--target", "cat"],
        {"text": "the [MASK]"},
        "masks",
        "mask 1  cat",
    ),
    (tokenize, "fill-mask", ["the cat"], {"text": "the cat"}, "tokens", "[CLS]"),
    (count, "fill-mask", ["the cat"], {"text": "the cat"}, "tokens", "4 tokens"),
]
