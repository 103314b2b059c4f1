"""The tasks of tables: which columns each reads, what it asks, which columns it gives.

::

    embed               text               embedding   fixed-size list of float32, or list
    embed_sparse        text               indices, values
    classify            text (and pair)    labels      list of label, score
    classify_zero_shot  text               labels
    rank                query, document    score
    tag                 text               entities    list of label, score, start, end, word
    answer              question, context  answers     list of start, end, score, is_answer
    fill_mask           text               masks       list of start, end, candidates
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from bertd.bundle import Manifest

from bertd_server.inside.options import fit, vector_format
from bertd_server.models.model import Model
from bertd_server.tasks import (
    answering,
    classification,
    embedding,
    filling,
    ranking,
    sparse,
    tagging,
)
from bertd_server.tasks.ask import Reply
from bertd_server.tasks.vectors import VectorFormatter
from bertd_server.tokenization.reader import Fit, Input

Options = Mapping[str, Any]
Values = Sequence[Any]
"""What a task says of each row; None where that is an error."""

_FIT = ("long_text", "truncation_side")
_WINDOWED = (*_FIT, "stride")
_LABELS = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
_PLACE = [("start", pa.int64()), ("end", pa.int64())]
_ENTITIES = pa.list_(
    pa.struct([("label", pa.string()), ("score", pa.float64()), *_PLACE, ("word", pa.string())])
)
_ANSWERS = pa.list_(pa.struct([*_PLACE, ("score", pa.float64()), ("is_answer", pa.bool_())]))
_CANDIDATES = pa.list_(
    pa.struct([("id", pa.int64()), ("text", pa.string()), ("score", pa.float64())])
)
_MASKS = pa.list_(pa.struct([*_PLACE, ("candidates", _CANDIDATES)]))


@dataclass(frozen=True, slots=True)
class TableTask:
    """What a model is asked of each row.

    Attributes:
        reads: what the columns of texts are called; the last may be left out if `alone`.
        options: by keyword, as of the methods of :mod:`bertd_server.inside`.
        ask: replies to inputs, in order.
        fields: of the columns that it gives; the flag says whether vectors have a fixed size.
        arrays: those columns, from values and fields.
        alone: whether a text without its pair can be asked about.
    """

    reads: tuple[str, ...]
    options: tuple[str, ...]
    ask: Callable[[Model, Sequence[Input], Options], Awaitable[list[Reply[Any]]]]
    fields: Callable[[Manifest, Options, bool], list[pa.Field]]
    arrays: Callable[[Values, Sequence[pa.Field]], list[pa.Array]]
    alone: bool = False


def _rest(options: Options) -> dict[str, Any]:
    """The options that a task takes by its own names."""
    return {name: value for name, value in options.items() if name not in _WINDOWED}


def _fit(options: Options, *, second_only: bool = False) -> Fit:
    return fit(options, windows=True, second_only=second_only)


async def _embed(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    form = vector_format(options)
    prompt = options.get("prompt_name")
    return await embedding.embed(model, inputs, _fit(options), prompt_name=prompt, form=form)


def _vector_fields(manifest: Manifest, options: Options, fixed: bool) -> list[pa.Field]:
    form = vector_format(options)
    none = VectorFormatter.of(form, manifest.dimensions, normalize=manifest.normalized).empty()
    size = int(none.shape[1]) if fixed else -1  # as Arrow says that there is none
    return [pa.field("embedding", pa.list_(pa.from_numpy_dtype(none.dtype), size))]


def _vectors(values: Values, fields: Sequence[pa.Field]) -> list[pa.Array]:
    """Vectors as Arrow has them; the place of a missing one is null."""
    kind = fields[0].type
    missing = np.array([value is None for value in values], np.bool_)
    found = [value for value in values if value is not None]
    numbers = kind.value_type.to_pandas_dtype()
    rows = np.stack(found) if found else np.empty((0, 0), numbers)
    if not pa.types.is_fixed_size_list(kind):
        sizes = np.where(missing, 0, rows.shape[1])
        offsets = pa.array(np.r_[0, np.cumsum(sizes)].astype(np.int32))
        return [
            pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()), kind, mask=_mask(missing))
        ]
    table = np.zeros((len(values), kind.list_size), numbers)
    if found:
        table[~missing] = rows
    flat = pa.array(table.ravel())
    return [pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=_mask(missing))]


def _mask(missing: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array | None:
    return pa.array(missing) if missing.any() else None


async def _embed_sparse(
    model: Model, inputs: Sequence[Input], options: Options
) -> list[Reply[Any]]:
    return await sparse.embed_sparse(model, inputs, fit(options), **_rest(options))


def _sparse_arrays(values: Values, fields: Sequence[pa.Field]) -> list[pa.Array]:
    names = [field.name for field in fields]
    columns = [[None if one is None else getattr(one, name) for one in values] for name in names]
    return [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]


async def _classify(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    return await classification.classify(model, inputs, fit(options), **_rest(options))


async def _zero_shot(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    rest = _rest(options)
    labels = rest.pop("labels", ())
    return await classification.classify_zero_shot(model, inputs, labels, fit(options), **rest)


async def _rank(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    return await ranking.score_pairs(model, inputs, _fit(options), **_rest(options))


async def _tag(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    return await tagging.tag(model, inputs, _fit(options), **_rest(options))


async def _answer(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    how = _fit(options, second_only=True)
    return await answering.answer(model, inputs, how, **_rest(options))


async def _fill_mask(model: Model, inputs: Sequence[Input], options: Options) -> list[Reply[Any]]:
    return await filling.fill_masks(model, inputs, fit(options), **_rest(options))


def _column(name: str, kind: pa.DataType) -> Callable[[Manifest, Options, bool], list[pa.Field]]:
    return lambda _manifest, _options, _fixed: [pa.field(name, kind)]


def _plain(values: Values, fields: Sequence[pa.Field]) -> list[pa.Array]:
    """Numbers, or lists of dataclasses as lists of structs."""
    rows = [[asdict(one) for one in row] if isinstance(row, list) else row for row in values]
    return [pa.array(rows, fields[0].type)]


TASKS: Mapping[str, TableTask] = {
    "embed": TableTask(
        ("text",),
        (*_WINDOWED, "prompt_name", "dimensions", "output_dtype", "ranges"),
        _embed,
        _vector_fields,
        _vectors,
    ),
    "embed_sparse": TableTask(
        ("text",),
        (*_FIT, "prompt_name", "max_active_dims"),
        _embed_sparse,
        lambda _manifest, _options, _fixed: [
            pa.field("indices", pa.list_(pa.int64())),
            pa.field("values", pa.list_(pa.float32())),
        ],
        _sparse_arrays,
    ),
    "classify": TableTask(
        ("text", "pair"),
        (*_FIT, "top_k", "score_function"),
        _classify,
        _column("labels", _LABELS),
        _plain,
        alone=True,
    ),
    "classify_zero_shot": TableTask(
        ("text",),
        (*_FIT, "labels", "hypothesis_template", "multi_label"),
        _zero_shot,
        _column("labels", _LABELS),
        _plain,
    ),
    "rank": TableTask(
        ("query", "document"),
        (*_WINDOWED, "score_function", "prompt_name"),
        _rank,
        _column("score", pa.float64()),
        _plain,
    ),
    "tag": TableTask(
        ("text",),
        (*_WINDOWED, "aggregation", "include_outside"),
        _tag,
        _column("entities", _ENTITIES),
        _plain,
    ),
    "answer": TableTask(
        ("question", "context"),
        (*_WINDOWED, "top_k", "max_answer_tokens", "allow_no_answer"),
        _answer,
        _column("answers", _ANSWERS),
        _plain,
    ),
    "fill_mask": TableTask(
        ("text",),
        (*_FIT, "top_k", "targets"),
        _fill_mask,
        _column("masks", _MASKS),
        _plain,
    ),
}
