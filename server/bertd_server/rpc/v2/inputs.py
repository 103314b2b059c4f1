"""From tensors to inputs: texts, pairs of texts, and tokens that the caller has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc.v2 import parameters
from bertd_server.rpc.v2.parameters import RequestParameters
from bertd_server.rpc.v2.surface import FIRST, INPUT_IDS, LABELS, MASK, SECOND, TYPES
from bertd_server.rpc.v2.tensors import Tensor
from bertd_server.system.turns import Turns, give_way
from bertd_server.tokenization.pretokenized import Pretokenized
from bertd_server.tokenization.reader import Input

Tensors = Mapping[str, Tensor]

# What the event loop does in one to two ms.
_ROWS_A_TURN = 32
_BYTES_A_TURN = 1_000_000

_PAIRS = ("question-answering", "text-ranking")
# What says how texts are read, and so says nothing about tokens.
_OF_TEXTS = (
    *("long_text", "truncate", "truncation_side", "stride", "prompt_name"),
    *("labels", "hypothesis_template", "multi_label"),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request asks about: at least one input, and the labels that it brings."""

    inputs: list[Input]
    labels: list[str] | None = None


async def inputs_of(
    model: Model, tensors: Tensors, options: RequestParameters, max_texts: int
) -> Inputs:
    """The inputs of a request, read a few in each turn of the event loop.

    Args:
        model: that is asked.
        tensors: of the request, by name.
        options: of the request.
        max_texts: inputs that a call may have.

    Raises:
        InvalidInput: one is missing, or does not fit the others or the model.
    """
    if any(name in tensors for name in (INPUT_IDS, TYPES, MASK)):
        return Inputs(await _tokens(model, tensors, options, max_texts))
    task = model.manifest.task
    labels = await _labels(tensors, options)
    first, second = _one_of(FIRST, tensors), _one_of(SECOND, tensors)
    natural = {"question-answering": ("question", "context"), "text-ranking": ("query", "document")}
    names = natural.get(task, ("text", "text_pair"))
    if first is None:
        raise _missing(names[0])
    if second is None and task in _PAIRS:
        raise _missing(names[1])
    if task == "zero-shot-classification":
        _check_zero_shot(labels, options, pairs=second is not None)
    texts = await _texts(first)
    if second is None:
        _check_count(len(texts) * (len(labels) if labels else 1), max_texts, first.name, labels)
        return Inputs(
            [Input(text, field=f"{first.name}[{n}]") for n, text in enumerate(texts)], labels
        )
    pairs = await _texts(second)
    _check_count(len(pairs), max_texts, second.name)
    if len(texts) not in (1, len(pairs)):
        raise InvalidInput(
            f"{first.name} has {len(texts)} texts and {second.name} has {len(pairs)}: send one for "
            "each, or a single one for all",
            field=first.name,
        )
    return Inputs(
        [
            Input(
                texts[n % len(texts)],
                pair,
                f"{first.name}[{n % len(texts)}]",
                f"{second.name}[{n}]",
            )
            for n, pair in enumerate(pairs)
        ]
    )


def _one_of(names: Sequence[str], tensors: Tensors) -> Tensor | None:
    found = [tensors[name] for name in names if name in tensors]
    if len(found) > 1:
        raise InvalidInput(
            f"{found[0].name} and {found[1].name} are two names of one input: send one of them",
            field=found[1].name,
        )
    return found[0] if found else None


def _missing(name: str) -> InvalidInput:
    return InvalidInput(
        f"{name} is missing: send it as BYTES of shape [n, 1], or {INPUT_IDS} instead of texts",
        field=name,
    )


async def _texts(tensor: Tensor) -> list[str]:
    """The texts of a tensor of shape [n] or [n, 1]."""
    if len(tensor.shape) > 2 or tensor.shape[1:] not in ((), (1,)):
        raise InvalidInput(
            f"{tensor.name} has shape {list(tensor.shape)}: send [n] or [n, 1], a text each",
            field=tensor.name,
        )
    return await _decoded(tensor)


async def _decoded(tensor: Tensor) -> list[str]:
    texts, turns = list[str](), Turns(_BYTES_A_TURN)
    for number, text in enumerate(tensor.strings):
        try:
            texts.append(text.decode())
        except UnicodeDecodeError:
            field = f"{tensor.name}[{number}]"
            raise InvalidInput(
                f"{field} is not valid UTF-8: encode text as UTF-8",
                field=field,
                reason="not_unicode",
            ) from None
        if turns.over(len(text)):
            await give_way()
    return texts


async def _labels(tensors: Tensors, options: RequestParameters) -> list[str] | None:
    """The caller's own labels, from the input or from the parameter; None without any."""
    given, written = tensors.get(LABELS), options.get(LABELS)
    if given is not None and written is not None:
        raise InvalidInput(
            "labels is there as an input and as a parameter: send one of them", field=LABELS
        )
    if written is not None:
        return parameters.json_strings("labels", written)
    if given is None:
        return None
    labels = await _decoded(given)
    if len(given.shape) == 1:
        return labels
    rows, columns = given.shape[0], given.shape[-1]
    if len(given.shape) > 2 or labels != labels[:columns] * rows:
        raise InvalidInput(
            f"labels has shape {list(given.shape)}: send [k] or [1, k] for all texts, or [n, k] "
            "with equal rows; texts with other labels go into another call",
            field=LABELS,
        )
    return labels[:columns]


def _check_zero_shot(
    labels: Sequence[str] | None, options: RequestParameters, *, pairs: bool
) -> None:
    if labels is not None and pairs:
        raise InvalidInput(
            "labels and text_pair are both there: send labels to choose from, or pairs to have "
            "the model's own labels scored",
            field="text_pair",
        )
    if labels is None and not pairs:
        raise InvalidInput(
            "labels is missing: send it as BYTES of shape [k], or as a parameter with a JSON "
            "list; or send text_pair, to have the model's own labels scored",
            field=LABELS,
        )
    others = ("score_function",) if labels is not None else ("hypothesis_template", "multi_label")
    for name in others:
        if name in options:
            goes = "with pairs" if labels is not None else "with labels"
            raise InvalidInput(
                f"parameter {name} goes {goes}: leave it out", field=f"parameters.{name}"
            )


def _check_count(count: int, limit: int, name: str, labels: Sequence[str] | None = None) -> None:
    if count > limit:
        what = "pairs with the labels" if labels else "inputs"
        raise InvalidInput(
            f"{name} has {count} {what}, a call takes at most {limit}: split it into several calls",
            field=name,
            reason="too_many",
            limit=limit,
        )


async def _tokens(
    model: Model, tensors: Tensors, options: RequestParameters, max_texts: int
) -> list[Input]:
    """Rows of tokens, padding cut off."""
    ids = _checked_ids(tensors, options)
    _check_count(ids.shape[0], max_texts, INPUT_IDS)
    kinds = tensors[TYPES].numbers if TYPES in tensors else np.zeros(ids.shape, np.int64)
    kept = tensors[MASK].numbers if MASK in tensors else np.ones(ids.shape, np.int64)
    found, turns = list[Input](), Turns(_ROWS_A_TURN)
    for number, rows in enumerate(zip(ids.numbers, kinds, kept, strict=True)):
        found.append(_row(model, number, *rows))
        if turns.over():
            await give_way()
    return found


def _checked_ids(tensors: Tensors, options: RequestParameters) -> Tensor:
    """The ids of a request, which with what comes beside them are tokens alone."""
    for name in tensors:
        if name not in (INPUT_IDS, TYPES, MASK):
            raise InvalidInput(
                f"{name} and tokens are both there: send texts, or {INPUT_IDS} with "
                f"{TYPES} and {MASK}",
                field=name,
            )
    for name in _OF_TEXTS:
        if name in options:
            raise InvalidInput(
                f"parameter {name} goes with texts, and {INPUT_IDS} are read as they are: "
                "leave it out",
                field=f"parameters.{name}",
            )
    if INPUT_IDS not in tensors:
        raise _missing(INPUT_IDS)
    ids = tensors[INPUT_IDS]
    if len(ids.shape) != 2:
        raise InvalidInput(
            f"{INPUT_IDS} has shape {list(ids.shape)}: send [n, tokens]", field=INPUT_IDS
        )
    for name in (TYPES, MASK):
        if name in tensors and tensors[name].shape != ids.shape:
            raise InvalidInput(
                f"{name} has shape {list(tensors[name].shape)} and {INPUT_IDS} has "
                f"{list(ids.shape)}: send the same for both",
                field=name,
            )
    return ids


def _row(
    model: Model, number: int, ids: NDArray[Any], kinds: NDArray[Any], kept: NDArray[Any]
) -> Input:
    manifest, field = model.manifest, f"{INPUT_IDS}[{number}]"
    places = np.flatnonzero(kept)
    if not len(places):
        raise InvalidInput(
            f"{MASK}[{number}] has no 1: mark at least one token", field=f"{MASK}[{number}]"
        )
    begin, end = int(places[0]), int(places[-1]) + 1
    if not (kept[begin:end] == 1).all():
        raise InvalidInput(
            f"{MASK}[{number}] is not one stretch of 1 with 0 before and after: the mask marks "
            "padding, so leave tokens out instead of masking them",
            field=f"{MASK}[{number}]",
        )
    if end - begin > manifest.max_tokens:
        raise InvalidInput(
            f"{field} has {end - begin} tokens, the model reads at most {manifest.max_tokens}: "
            "shorten it",
            field=field,
            reason="too_long",
            limit=manifest.max_tokens,
        )
    ids, kinds = ids[begin:end].astype(np.int64), kinds[begin:end].astype(np.int64)
    _check_range(field, ids, begin, manifest.vocab_size, "the vocabulary")
    _check_range(f"{TYPES}[{number}]", kinds, begin, manifest.type_vocab_size, "the model")
    sequence = TokenSequence(ids, kinds)
    tokens = Pretokenized(sequence, model.tokenizer, begin)
    if manifest.task == "question-answering" and not tokens.has_pair:
        raise InvalidInput(
            f"{field} has no context: send question, separator, context and separator, as the "
            "tokenizer writes a pair",
            field=field,
        )
    return Input("", field=field, tokens=tokens)


def _check_range(name: str, values: NDArray[Any], begin: int, limit: int, whose: str) -> None:
    """Refuse a value of a row that is not below a limit; the row begins at a column."""
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if len(wrong):
        place = int(wrong[0])
        field = f"{name}[{begin + place}]"
        raise InvalidInput(
            f"{field} is {values[place]}: {whose} has 0 to {limit - 1}",
            field=field,
            reason="out_of_range",
            limit=limit - 1,
        )
