"""Values of tasks as columns of a response: an entry, or a row of them, for each input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from bertd_server.errors import InvalidInput
from bertd_server.rpc.v2.surface import (
    END_BYTE,
    MASK,
    SPARSE_INDICES,
    SPARSE_VALUES,
    START_BYTE,
)
from bertd_server.rpc.v2.tensors import Tensor, numbers, strings
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks import filling
from bertd_server.tasks.answering import Span
from bertd_server.tasks.ask import Reply
from bertd_server.tasks.embedding import TokenVectors
from bertd_server.tasks.sparse import SparseVector
from bertd_server.tasks.tagging import Entity
from bertd_server.tokenization.reader import Input
from bertd_server.tokenization.tokens import Places

T = TypeVar("T")
OutputTensors = dict[str, Tensor]

_ENTRIES = 64  # of JSON in a step: some tenths of a ms
MOST_PADDED_BYTES = 64 * 2**20  # of an output whose rows are as long as the longest


def counts(replies: Sequence[Reply[Any]]) -> OutputTensors:
    """How the inputs were read."""
    counted = {
        "token_count": [reply.tokens for reply in replies],
        "tokens_read": [reply.read for reply in replies],
        "windows": [reply.windows for reply in replies],
    }
    return {
        name: numbers(name, np.array(values, np.int64)[:, None]) for name, values in counted.items()
    }


def padded(found: Sequence[TokenVectors]) -> Steps[OutputTensors]:
    """Vectors of tokens, rows as long as the longest one.

    Raises:
        InvalidInput: there would be too many zeros.
    """
    longest = max(len(one.tokens) for one in found)
    shape = (len(found), longest, found[0].vectors.shape[1])
    _check_padded("token_embeddings", 4 * int(np.prod(shape)), f"{len(found)} rows of {longest}")
    vectors = np.zeros(shape, np.float32)
    ids, mask = np.zeros(shape[:2], np.int64), np.zeros(shape[:2], np.int64)
    for row, one in enumerate(found):
        vectors[row, : len(one.tokens)] = one.vectors
        ids[row, : len(one.tokens)] = one.tokens.ids
        mask[row, : len(one.tokens)] = 1
        yield
    return {
        "token_embeddings": numbers("token_embeddings", vectors),
        "token_ids": numbers("token_ids", ids),
        MASK: numbers(MASK, mask),
    }


def sparse(found: Sequence[SparseVector]) -> OutputTensors:
    """Sparse vectors, rows as long as the longest one, zeros after each one's entries.

    Raises:
        InvalidInput: there would be too many zeros.
    """
    shape = (len(found), max(1, *(len(one.indices) for one in found)))
    _check_padded(SPARSE_INDICES, 8 * int(np.prod(shape)), f"{shape[0]} rows of {shape[1]}")
    indices, values = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for row, one in enumerate(found):
        indices[row, : len(one.indices)] = one.indices
        values[row, : len(one.values)] = one.values
    return {
        SPARSE_INDICES: numbers(SPARSE_INDICES, indices),
        SPARSE_VALUES: numbers(SPARSE_VALUES, values),
    }


def described(
    describe: Callable[[Input, Sequence[T]], Iterator[Any]],
    inputs: Sequence[Input],
    found: Sequence[Sequence[T]],
) -> Steps[list[list[str]]]:
    """What was found in each input, as a row of one JSON list."""
    rows = []
    for one, values in zip(inputs, found, strict=True):
        entries = []
        for number, entry in enumerate(describe(one, values)):
            entries.append(json.dumps(entry, ensure_ascii=False))
            if not (number + 1) % _ENTRIES:
                yield
        rows.append([f"[{', '.join(entries)}]"])
        yield
    return rows


def entities(one: Input, found: Sequence[Entity]) -> Iterator[Any]:
    """What JSON says of the entities of an input."""
    place = _placer(one)
    for each in found:
        yield {
            "label": each.label,
            "score": each.score,
            "word": each.word,
            **place(each.start, each.end),
        }


def masks(one: Input, found: Sequence[filling.Mask]) -> Iterator[Any]:
    """What JSON says of the masks of an input and what fits them; tokens have no sequence."""
    place = _placer(one)
    for mask in found:
        yield {
            **place(mask.start, mask.end),
            "candidates": [
                {"id": each.id, "token": each.text, "score": each.score}
                | ({} if one.tokens else {"sequence": filling.fill(one.text, mask, each)})
                for each in mask.candidates
            ],
        }


def spans(inputs: Sequence[Input], found: Sequence[Sequence[Span]], count: int) -> OutputTensors:
    """Answers, `count` of each input.

    Of no answer: an empty one from 0 to 0. Where there are fewer: empty ones from -1 to -1.
    """
    texts = [[""] * count for _ in found]
    scores = np.zeros((len(found), count), np.float32)
    starts, ends = np.full(scores.shape, -1, np.int64), np.full(scores.shape, -1, np.int64)
    for row, (one, answers) in enumerate(zip(inputs, found, strict=True)):
        for column, span in enumerate(answers):
            start, end = span.start, span.end
            if one.tokens is not None and span.is_answer:
                start, end = one.tokens.columns(start, end)
                texts[row][column] = one.tokens.text(start, end)
            elif one.pair is not None:
                texts[row][column] = one.pair[start:end]
            scores[row, column], starts[row, column], ends[row, column] = span.score, start, end
    return {
        "answer": strings("answer", texts),
        "score": numbers("score", scores),
        "start": numbers("start", starts),
        "end": numbers("end", ends),
    }


def bytes_of(inputs: Sequence[Input], spans: OutputTensors) -> OutputTensors:
    """The starts and ends of :func:`spans` in bytes of UTF-8, for contexts that are texts."""
    given = [spans[name].numbers for name in ("start", "end")]
    starts, ends = (array.copy() for array in given)
    for row, one in enumerate(inputs):
        places = Places(one.pair or "")
        for column, (start, end) in enumerate(zip(*(array[row] for array in given), strict=True)):
            if start >= 0:
                offsets = places.offsets(int(start), int(end))
                starts[row, column], ends[row, column] = offsets.start_byte, offsets.end_byte
    return {START_BYTE: numbers(START_BYTE, starts), END_BYTE: numbers(END_BYTE, ends)}


def _check_padded(name: str, size: int, rows: str) -> None:
    """Refuse an output of so many bytes, if they are too many."""
    if size > MOST_PADDED_BYTES:
        raise InvalidInput(
            f"{name} would have {size} bytes, {rows} tokens, and may have {MOST_PADDED_BYTES}: "
            "send fewer texts a call, long and short ones apart",
            field=name,
            reason="too_many",
            limit=MOST_PADDED_BYTES,
        )


def _placer(one: Input) -> Callable[[int, int], dict[str, Any]]:
    """What to say of a stretch of an input: code points and bytes; of tokens, their places."""
    if one.tokens is not None:
        tokens = one.tokens

        def columns(start: int, end: int) -> dict[str, Any]:
            first, last = tokens.columns(start, end)
            return {"start": first, "end": last}

        return columns
    places = Places(one.text)

    def place(start: int, end: int) -> dict[str, Any]:
        offsets = places.offsets(start, end)
        return {
            "text": one.text[start:end],
            "start": offsets.start,
            "end": offsets.end,
            "start_byte": offsets.start_byte,
            "end_byte": offsets.end_byte,
        }

    return place
