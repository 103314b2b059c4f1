"""From a request's inputs to its outputs: each task's replies as tensors.

A V2 request succeeds or fails as a whole, so one input without an answer fails it. The first axis
of every output is the batch; what is one value of an input has a second axis of length 1.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from bertd.bundle import Task

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.model import Model
from bertd_server.services.v2 import parameters
from bertd_server.services.v2.inputs import Inputs
from bertd_server.services.v2.parameters import Options
from bertd_server.services.v2.surface import MASK
from bertd_server.services.v2.tensors import Tensor, numbers, strings
from bertd_server.tasks import answering, classification, embedding, filling, ranking, tagging
from bertd_server.tasks.ask import Caller, Reply
from bertd_server.tokens import Places

T = TypeVar("T")
Outputs = dict[str, Tensor]

MOST_PADDED_BYTES = 64 * 2**20  # of token_embeddings, whose rows are as long as the longest


class InputsFailed(RequestError):
    """Inputs have no answer; `errors` says why, the first one's code is that of the call."""

    def __init__(self, errors: Sequence[RequestError]) -> None:
        super().__init__(errors[0].message, field=errors[0].field)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks: of which model, about what, how, how urgently, and for which outputs."""

    model: Model
    given: Inputs
    options: Options
    caller: Caller
    wanted: frozenset[str]


async def answer(asked: Asked) -> Outputs:
    """The outputs of a request by name: those that are wanted, and what comes with them.

    Raises:
        InputsFailed: an input has no answer.
        RequestError: the request as a whole cannot be answered.
    """
    return await _BY_TASK[asked.model.manifest.task](asked)


async def _embed(asked: Asked) -> Outputs:
    fit, name = parameters.fit(asked.options), asked.options.get("prompt_name")
    outputs: Outputs = {}
    model, inputs, caller = asked.model, asked.given.inputs, asked.caller
    of_tokens = asked.wanted & {"token_embeddings", "token_ids", MASK}
    if of_tokens:
        replies = await embedding.embed_tokens(model, inputs, fit, caller, prompt_name=name)
        outputs |= _padded(_values(asked, replies), asked) | _counts(replies)
    if not of_tokens or "sentence_embedding" in asked.wanted:
        vectors = await embedding.embed(model, inputs, fit, caller, prompt_name=name)
        found = _values(asked, vectors)
        outputs |= {"sentence_embedding": numbers("sentence_embedding", np.stack(found))}
        outputs |= _counts(vectors)
    return outputs


async def _classify(asked: Asked) -> Outputs:
    labels, options = asked.given.labels, asked.options
    if labels is None:
        labels = list(asked.model.manifest.labels)
        replies = await classification.classify(
            asked.model,
            asked.given.inputs,
            parameters.fit(options),
            asked.caller,
            score_function=options.get("score_function", "default"),
        )
    else:
        replies = await classification.classify_zero_shot(
            asked.model,
            asked.given.inputs,
            labels,
            parameters.fit(options),
            asked.caller,
            hypothesis_template=options.get("hypothesis_template", classification.HYPOTHESIS),
            multi_label=options.get("multi_label", False),
        )
    found = _values(asked, replies)
    count = min(options.get("top_k", 1), len(labels))
    places = {label: place for place, label in enumerate(labels)}
    scores = np.zeros((len(found), len(labels)), np.float32)
    for row, one in zip(scores, found, strict=True):
        for each in one:
            row[places[each.label]] = each.score
    best = np.array([[each.score for each in one[:count]] for one in found], np.float32)
    return {
        "label": strings("label", [[each.label for each in one[:count]] for one in found]),
        "score": numbers("score", best),
        "scores": numbers("scores", scores),
        **_counts(replies),
    }


async def _rank(asked: Asked) -> Outputs:
    replies = await ranking.score_pairs(
        asked.model,
        asked.given.inputs,
        parameters.fit(asked.options, second_only=True),
        asked.caller,
        score_function=asked.options.get("score_function", "default"),
    )
    scores = np.array(_values(asked, replies), np.float32)[:, None]
    return {"score": numbers("score", scores), **_counts(replies)}


async def _tag(asked: Asked) -> Outputs:
    replies = await tagging.tag(
        asked.model,
        asked.given.inputs,
        parameters.fit(asked.options),
        asked.caller,
        aggregation=asked.options.get("aggregation", "simple"),
        include_outside=asked.options.get("include_outside", False),
    )
    rows = []
    for number, found in enumerate(_values(asked, replies)):
        place = _placer(asked, number)
        entities = [
            {"label": one.label, "score": one.score, "word": one.word, **place(one.start, one.end)}
            for one in found
        ]
        rows.append([json.dumps(entities, ensure_ascii=False)])
    return {"entities": strings("entities", rows), **_counts(replies)}


async def _find_answers(asked: Asked) -> Outputs:
    options, count = asked.options, asked.options.get("top_k", 1)
    replies = await answering.answer(
        asked.model,
        asked.given.inputs,
        parameters.fit(options, second_only=True),
        asked.caller,
        top_k=count,
        max_answer_tokens=options.get("max_answer_tokens", answering.ANSWER_TOKENS),
        allow_no_answer=options.get("allow_no_answer", False),
    )
    found = _values(asked, replies)
    texts = [[""] * count for _ in found]
    scores = np.zeros((len(found), count), np.float32)
    starts, ends = np.full(scores.shape, -1, np.int64), np.full(scores.shape, -1, np.int64)
    for row, spans in enumerate(found):
        one = asked.given.inputs[row]
        for column, span in enumerate(spans):
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
        **_counts(replies),
    }


async def _fill(asked: Asked) -> Outputs:
    replies = await filling.fill_masks(
        asked.model,
        asked.given.inputs,
        parameters.fit(asked.options),
        asked.caller,
        top_k=asked.options.get("top_k", filling.CANDIDATES),
    )
    rows = []
    for number, found in enumerate(_values(asked, replies)):
        one, place = asked.given.inputs[number], _placer(asked, number)
        masks = [
            {
                **place(mask.start, mask.end),
                "candidates": [
                    {"id": each.id, "token": each.text, "score": each.score}
                    | ({} if one.tokens else {"sequence": filling.fill(one.text, mask, each)})
                    for each in mask.candidates
                ],
            }
            for mask in found
        ]
        rows.append([json.dumps(masks, ensure_ascii=False)])
    return {"masks": strings("masks", rows), **_counts(replies)}


_BY_TASK: Mapping[Task, Callable[[Asked], Awaitable[Outputs]]] = {
    "feature-extraction": _embed,
    "text-classification": _classify,
    "zero-shot-classification": _classify,
    "text-ranking": _rank,
    "token-classification": _tag,
    "question-answering": _find_answers,
    "fill-mask": _fill,
}


def _values(asked: Asked, replies: Sequence[Reply[T]]) -> list[T]:
    """The value of each input; all of them, or none."""
    values, errors = [], []
    for one, reply in zip(asked.given.inputs, replies, strict=True):
        if isinstance(reply.outcome, RequestError):
            errors.append(_about(reply.outcome, one.field))
        else:
            values.append(reply.outcome)
    if errors:
        raise InputsFailed(errors)
    return values


def _about(error: RequestError, field: str) -> RequestError:
    """An error that names its input."""
    if error.field:
        return error
    named = copy.copy(error)
    named.message = f"{field}: {error.message}"
    return named


def _placer(asked: Asked, number: int) -> Callable[[int, int], dict[str, Any]]:
    """What to say of a stretch of an input: code points and bytes; of tokens, their places."""
    one = asked.given.inputs[number]
    if one.tokens is not None:
        tokens = one.tokens
        return lambda start, end: dict(
            zip(("start", "end"), tokens.columns(start, end), strict=True)
        )
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


def _counts(replies: Sequence[Reply[Any]]) -> Outputs:
    counted = {
        "token_count": [reply.tokens for reply in replies],
        "tokens_read": [reply.read for reply in replies],
        "windows": [reply.windows for reply in replies],
    }
    return {
        name: numbers(name, np.array(counts, np.int64)[:, None]) for name, counts in counted.items()
    }


def _padded(found: Sequence[embedding.TokenVectors], asked: Asked) -> Outputs:
    """Vectors of tokens, rows as long as the longest one."""
    longest, hidden = max(len(one.tokens) for one in found), asked.model.manifest.hidden_size
    size = 4 * len(found) * longest * hidden
    if size > MOST_PADDED_BYTES:
        raise InvalidInput(
            f"token_embeddings would have {size} bytes, {len(found)} rows of {longest} tokens, and "
            f"may have {MOST_PADDED_BYTES}: send fewer texts a call, long and short ones apart",
            field=asked.given.inputs[0].field,
        )
    vectors = np.zeros((len(found), longest, hidden), np.float32)
    ids, mask = np.zeros(vectors.shape[:2], np.int64), np.zeros(vectors.shape[:2], np.int64)
    for row, one in enumerate(found):
        vectors[row, : len(one.tokens)] = one.vectors
        ids[row, : len(one.tokens)] = [token.id for token in one.tokens]
        mask[row, : len(one.tokens)] = 1
    return {
        "token_embeddings": numbers("token_embeddings", vectors),
        "token_ids": numbers("token_ids", ids),
        MASK: numbers(MASK, mask),
    }
