"""Answers as lines for people, below a heading with the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]

_VALUES = 6  # of a vector that are shown


def embedding(record: Record) -> Iterator[str]:
    """How long a vector is, and how it begins."""
    yield f"{record['tokens']} tokens, {_vector(record['embedding'])}"


def token_embeddings(record: Record) -> Iterator[str]:
    """The same for each token."""
    for token, vector in zip(record["tokens"], record["embeddings"], strict=True):
        yield f"{token['token']:<16} {_vector(vector)}"


def labels(record: Record) -> Iterator[str]:
    """Scores with their labels."""
    for one in record["labels"]:
        yield f"{one['score']:8.4f}  {one['label']}"


def ranking(record: Record) -> Iterator[str]:
    """Scores with their documents."""
    for one in record["ranking"]:
        yield f"{one['score']:8.4f}  {one['index'] + 1:>3}  {one['document']}"


def entities(record: Record) -> Iterator[str]:
    """Entities with their places."""
    for one in record["entities"]:
        yield f"{one['score']:8.4f}  {one['label']:<10}  {_place(one)}  {one['text']}"
    if not record["entities"]:
        yield "nothing found"


def spans(record: Record) -> Iterator[str]:
    """Answers with their places."""
    for one in record["spans"]:
        yield f"{one['score']:8.4f}  " + (
            "no answer" if one["no_answer"] else f"{_place(one)}  {one['text']}"
        )


def masks(record: Record) -> Iterator[str]:
    """What fits each mask."""
    for number, mask in enumerate(record["masks"], 1):
        for one in mask["candidates"]:
            yield f"{one['score']:8.4f}  mask {number}  {one['text']}"


def tokens(record: Record) -> Iterator[str]:
    """Ids, tokens and their places."""
    for one in record["tokens"]:
        yield f"{one['id']:>7}  {one['token']:<16}  {'special' if one['special'] else _place(one)}"


def count(record: Record) -> Iterator[str]:
    """How many."""
    yield f"{record['tokens']} tokens"


def _place(one: Record) -> str:
    return f"{one['start']:>4}-{one['end']:<4}"


def _vector(vector: Any) -> str:
    values = " ".join(f"{value:.4f}" for value in vector[:_VALUES])
    more = " …" if len(vector) > _VALUES else ""
    return f"{len(vector)} values: {values}{more}"
