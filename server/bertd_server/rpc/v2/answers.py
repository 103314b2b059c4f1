"""From a request's inputs to its outputs: each task's replies as tensors.

A V2 request succeeds or fails as a whole, so one input without an answer fails it. The first axis
of every output is the batch; what is one value of an input has a second axis of length 1.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from bertd.bundle import Task

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.models.model import Model
from bertd_server.rpc.v2 import columns, parameters
from bertd_server.rpc.v2.columns import OutputTensors
from bertd_server.rpc.v2.inputs import Inputs
from bertd_server.rpc.v2.parameters import RequestParameters
from bertd_server.rpc.v2.surface import (
    END_BYTE,
    INPUT_IDS,
    MASK,
    SPARSE_INDICES,
    SPARSE_VALUES,
    START_BYTE,
)
from bertd_server.rpc.v2.tensors import numbers, strings
from bertd_server.tasks import (
    answering,
    classification,
    embedding,
    filling,
    ranking,
    sparse,
    tagging,
)
from bertd_server.tasks.ask import CallContext, Reply

T = TypeVar("T")

_ID_BYTES = 8  # of a token's id, and of its mask


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
    options: RequestParameters
    caller: CallContext
    wanted: frozenset[str]


async def answer(asked: Asked) -> OutputTensors:
    """The outputs of a request by name: those that are wanted, and what comes with them.

    Raises:
        InputsFailed: an input has no answer.
        RequestError: the request as a whole cannot be answered.
    """
    return await _BY_TASK[asked.model.manifest.task](asked)


async def _embed(asked: Asked) -> OutputTensors:
    fit, name = parameters.fit(asked.options), asked.options.get("prompt_name")
    outputs: OutputTensors = {}
    model, inputs, caller = asked.model, asked.given.inputs, asked.caller
    of_tokens = asked.wanted & {"token_embeddings", "token_ids", MASK}
    if of_tokens:
        width = _ID_BYTES * len(of_tokens - {"token_embeddings"})
        if "token_embeddings" in of_tokens:
            width += 4 * model.manifest.hidden_size
        replies = await embedding.embed_tokens(
            model, inputs, fit, caller, prompt_name=name, padded=width
        )
        tokens = _values(asked, replies)
        outputs |= await model.jobs.run(columns.padded(tokens), caller.deadline)
        outputs |= columns.counts(replies)
    if not of_tokens or "sentence_embedding" in asked.wanted:
        form = parameters.vector_format(asked.options)
        vectors = await embedding.embed(model, inputs, fit, caller, prompt_name=name, form=form)
        found = _values(asked, vectors)
        outputs |= {"sentence_embedding": numbers("sentence_embedding", np.stack(found))}
        outputs |= columns.counts(vectors)
    return outputs


async def _classify(asked: Asked) -> OutputTensors:
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
        **columns.counts(replies),
    }


async def _rank(asked: Asked) -> OutputTensors:
    replies = await ranking.score_pairs(
        asked.model,
        asked.given.inputs,
        parameters.fit(asked.options),
        asked.caller,
        score_function=asked.options.get("score_function", "default"),
        prompt_name=asked.options.get("prompt_name"),
    )
    scores = np.array(_values(asked, replies), np.float32)[:, None]
    return {"score": numbers("score", scores), **columns.counts(replies)}


async def _tag(asked: Asked) -> OutputTensors:
    replies = await tagging.tag(
        asked.model,
        asked.given.inputs,
        parameters.fit(asked.options),
        asked.caller,
        aggregation=asked.options.get("aggregation", "simple"),
        include_outside=asked.options.get("include_outside", False),
    )
    found = _values(asked, replies)
    rows = await asked.model.jobs.run(
        columns.described(columns.entities, asked.given.inputs, found), asked.caller.deadline
    )
    return {"entities": strings("entities", rows), **columns.counts(replies)}


async def _find_answers(asked: Asked) -> OutputTensors:
    of_bytes = sorted(asked.wanted & {START_BYTE, END_BYTE})
    if of_bytes and asked.given.inputs[0].tokens is not None:
        raise InvalidInput(
            f"{of_bytes[0]} counts bytes of a context, and {INPUT_IDS} brings none: ask for start "
            "and end, which count tokens",
            field="outputs",
        )
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
    spans = columns.spans(asked.given.inputs, found, count)
    if of_bytes:
        spans |= columns.bytes_of(asked.given.inputs, spans)
    return {**spans, **columns.counts(replies)}


async def _fill(asked: Asked) -> OutputTensors:
    options, count = asked.options, asked.options.get("top_k", filling.CANDIDATES)
    outputs: OutputTensors = {}
    if asked.wanted & {SPARSE_INDICES, SPARSE_VALUES}:
        weighed = await sparse.embed_sparse(
            asked.model,
            asked.given.inputs,
            parameters.fit(options),
            asked.caller,
            prompt_name=options.get("prompt_name"),
            max_active_dims=options.get("max_active_dims"),
        )
        outputs |= columns.sparse(_values(asked, weighed)) | columns.counts(weighed)
        if "masks" not in asked.wanted:
            return outputs
    replies = await filling.fill_masks(
        asked.model,
        asked.given.inputs,
        parameters.fit(options),
        asked.caller,
        top_k=count,
        targets=parameters.json_strings("targets", options.get("targets", "[]")),
    )
    found = _values(asked, replies)
    rows = await asked.model.jobs.run(
        columns.described(columns.masks, asked.given.inputs, found), asked.caller.deadline
    )
    return {**outputs, "masks": strings("masks", rows), **columns.counts(replies)}


_BY_TASK: Mapping[Task, Callable[[Asked], Awaitable[OutputTensors]]] = {
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
