"""The methods of a model in process: texts and options in, a reply for each input out.

::

    texts ──Input──> bertd_server.tasks ──> Reply(outcome: value | RequestError, tokens, trace)

The services ask the same tasks with messages; here are no messages, and no limit of a call's size.
Each method is written once, as a function, and :class:`ModelMethods` gives it to both faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.inside.binding import ModelMethod, settled, values
from bertd_server.inside.options import (
    How,
    VectorOptions,
    Windowed,
    caller,
    fit,
    vector_format,
)
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks import (
    answering,
    classification,
    embedding,
    filling,
    ranking,
    sparse,
    tagging,
)
from bertd_server.tasks.answering import Span
from bertd_server.tasks.ask import Reply
from bertd_server.tasks.classification import LabelScore, ScoreFunction
from bertd_server.tasks.decoding import written
from bertd_server.tasks.embedding import TokenVectors
from bertd_server.tasks.filling import Mask
from bertd_server.tasks.sparse import SparseVector
from bertd_server.tasks.tagging import Aggregation, Entity
from bertd_server.tasks.vectors import Vector, VectorFormatter
from bertd_server.tokenization.reader import Input, texts_of
from bertd_server.tokenization.token_list import TokenList
from bertd_server.tokenization.tokens import Token

TextOrPair = str | tuple[str, str]

_PARTS = 256  # tokens take some tenths of a ms to describe


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document by its place in the call, and how relevant it is."""

    index: int
    score: float


async def _embed_each(
    model: Model, texts: Sequence[str], **how: Unpack[VectorOptions]
) -> list[Reply[Vector]]:
    """Compute one vector per text, float32 `[dimensions]` unless asked for otherwise."""
    return await embedding.embed(
        model,
        texts_of(_strings(texts, "texts")),
        fit(how, windows=True),
        caller(how),
        prompt_name=how.get("prompt_name"),
        form=vector_format(how),
    )


async def _embed(model: Model, texts: Sequence[str], **how: Unpack[VectorOptions]) -> Vector:
    """Compute one vector per text, float32 `[texts, dimensions]` unless asked for otherwise."""
    rows = settled(await _embed_each(model, texts, **how))
    if rows:
        return np.stack(rows)
    manifest = model.manifest
    formatter = VectorFormatter.of(
        vector_format(how), manifest.dimensions, normalize=manifest.normalized
    )
    return formatter.empty()


async def _embed_tokens(
    model: Model,
    texts: Sequence[str],
    *,
    prompt_name: str | None = None,
    **how: Unpack[Windowed],
) -> list[Reply[TokenVectors]]:
    """Compute one vector per token of each text, float32 `[tokens, hidden_size]`."""
    inputs = texts_of(_strings(texts, "texts"))
    return await embedding.embed_tokens(
        model, inputs, fit(how, windows=True), caller(how), prompt_name=prompt_name
    )


async def _embed_sparse(
    model: Model,
    texts: Sequence[str],
    *,
    prompt_name: str | None = None,
    max_active_dims: int | None = None,
    **how: Unpack[How],
) -> list[Reply[SparseVector]]:
    """Weigh the vocabulary for each text, as SPLADE does; of models for fill-mask."""
    return await sparse.embed_sparse(
        model,
        texts_of(_strings(texts, "texts")),
        fit(how),
        caller(how),
        prompt_name=prompt_name,
        max_active_dims=max_active_dims,
    )


async def _classify(
    model: Model,
    inputs: Sequence[TextOrPair],
    *,
    top_k: int = 0,
    score_function: ScoreFunction = "default",
    **how: Unpack[How],
) -> list[Reply[list[LabelScore]]]:
    """Score the model's labels for texts or pairs of texts, best first; `top_k` 0 gives all."""
    return await classification.classify(
        model,
        _texts_or_pairs(inputs),
        fit(how),
        caller(how),
        top_k=top_k,
        score_function=score_function,
    )


async def _classify_zero_shot(
    model: Model,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    hypothesis_template: str = classification.HYPOTHESIS,
    multi_label: bool = False,
    **how: Unpack[How],
) -> list[Reply[list[LabelScore]]]:
    """Score labels of your own, by inference between text and label, best first."""
    return await classification.classify_zero_shot(
        model,
        texts_of(_strings(texts, "texts")),
        _strings(labels, "labels"),
        fit(how),
        caller(how),
        hypothesis_template=hypothesis_template,
        multi_label=multi_label,
    )


async def _score_documents(
    model: Model,
    query: str,
    documents: Sequence[str],
    *,
    score_function: Literal["default", "sigmoid", "none"] = "default",
    prompt_name: str | None = None,
    **how: Unpack[Windowed],
) -> list[Reply[float]]:
    """Score documents by relevance to a query, in their order."""
    pairs = [
        Input(query, document, "query", f"documents[{number}]")
        for number, document in enumerate(_strings(documents, "documents"))
    ]
    return await ranking.score_pairs(
        model,
        pairs,
        fit(how, windows=True),
        caller(how),
        score_function=score_function,
        prompt_name=prompt_name,
    )


async def _rerank(
    model: Model,
    query: str,
    documents: Sequence[str],
    *,
    score_function: Literal["default", "sigmoid", "none"] = "default",
    prompt_name: str | None = None,
    **how: Unpack[Windowed],
) -> list[Ranked]:
    """Score documents by relevance to a query, best first, equal ones as given."""
    replies = await _score_documents(
        model, query, documents, score_function=score_function, prompt_name=prompt_name, **how
    )
    scores = settled(replies)
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return [Ranked(place, scores[place]) for place in order]


async def _tag(
    model: Model,
    texts: Sequence[str],
    *,
    aggregation: Aggregation = "simple",
    include_outside: bool = False,
    **how: Unpack[Windowed],
) -> list[Reply[list[Entity]]]:
    """Find the entities of each text, in its order."""
    return await tagging.tag(
        model,
        texts_of(_strings(texts, "texts")),
        fit(how, windows=True),
        caller(how),
        aggregation=aggregation,
        include_outside=include_outside,
    )


async def _answer(
    model: Model,
    inputs: Sequence[tuple[str, str]],
    *,
    top_k: int = 1,
    max_answer_tokens: int = answering.ANSWER_TOKENS,
    allow_no_answer: bool = False,
    **how: Unpack[Windowed],
) -> list[Reply[list[Span]]]:
    """Answer questions, each given as (question, context), from their contexts, best first."""
    pairs = [
        Input(question, context, f"inputs[{number}].question", f"inputs[{number}].context")
        for number, (question, context) in enumerate(inputs)
    ]
    return await answering.answer(
        model,
        pairs,
        fit(how, windows=True, second_only=True),
        caller(how),
        top_k=top_k,
        max_answer_tokens=max_answer_tokens,
        allow_no_answer=allow_no_answer,
    )


async def _fill_mask(
    model: Model,
    texts: Sequence[str],
    *,
    top_k: int = filling.CANDIDATES,
    targets: Sequence[str] = (),
    **how: Unpack[How],
) -> list[Reply[list[Mask]]]:
    """Find the most probable tokens for each mask of each text, best first, of `targets` if any."""
    inputs, chosen = texts_of(_strings(texts, "texts")), _strings(targets, "targets")
    return await filling.fill_masks(
        model, inputs, fit(how), caller(how), top_k=top_k, targets=chosen
    )


async def _tokenize(
    model: Model, inputs: Sequence[TextOrPair], *, special_tokens: bool = True
) -> list[Reply[list[Token]]]:
    """Turn texts or pairs into tokens, as the model reads them; none is cut off."""
    encodings = await model.encode(_texts_or_pairs(inputs), special=special_tokens)

    def describe() -> Steps[list[Reply[list[Token]]]]:
        replies: list[Reply[list[Token]]] = []
        for one in encodings:
            if isinstance(one, RequestError):
                replies.append(Reply(one, one.tokens))
                continue
            found, tokens = TokenList.of(one, model.tokenizer), list[Token]()
            for start in range(0, len(found), _PARTS):
                yield
                tokens += found[start : start + _PARTS]
            replies.append(Reply(tokens, len(tokens)))
        return replies

    return await model.jobs.run(describe())


async def _count_tokens(model: Model, inputs: Sequence[TextOrPair]) -> list[Reply[int]]:
    """Count the tokens of texts or pairs, special tokens included."""
    counts = await model.count(_texts_or_pairs(inputs))
    return [Reply(one, one if isinstance(one, int) else one.tokens) for one in counts]


async def _detokenize(
    model: Model, sequences: Sequence[Sequence[int]], *, special_tokens: bool = False
) -> list[str]:
    """Write token ids as texts."""
    known = model.manifest.vocab_size
    for number, ids in enumerate(sequences):
        wrong = next((id_ for id_ in ids if not 0 <= id_ < known), None)
        if wrong is not None:
            raise InvalidInput(
                f"sequences[{number}] has the id {wrong}: ids go from 0 to {known - 1}",
                field=f"sequences[{number}]",
                reason="out_of_range",
                limit=known - 1,
            )

    def decode() -> Steps[list[str]]:
        texts: list[str] = []
        for ids in sequences:
            yield
            texts.append(
                (yield from written(model.tokenizer, ids, skip_special_tokens=not special_tokens))
            )
        return texts

    return await model.jobs.run(decode())


def _strings(given: Sequence[str], field: str) -> list[str]:
    """Texts as a list; a lone text is a mistake that would be read letter by letter."""
    if isinstance(given, str | bytes):
        raise TypeError(f"{field} is one text: give a list, such as [{field[:-1]}]")
    for number, one in enumerate(given):
        if not isinstance(one, str):
            raise TypeError(f"{field}[{number}] is {type(one).__name__}: give a str")
    return list(given)


def _texts_or_pairs(given: Sequence[TextOrPair]) -> list[Input]:
    if isinstance(given, str | bytes):
        raise TypeError("inputs is one text: give a list of texts, or of pairs of texts")
    return [_input(one, number) for number, one in enumerate(given)]


def _input(one: Any, number: int) -> Input:
    match one:
        case str():
            return Input(one, field=f"inputs[{number}]")
        case (str() as text, str() as pair):
            return Input(text, pair, f"inputs[{number}][0]", f"inputs[{number}][1]")
    raise TypeError(f"inputs[{number}] is {type(one).__name__}: give a str, or two of them")


class ModelMethods:
    """What a model can be asked; the twins with `_each` give a reply for each input."""

    embed = ModelMethod(_embed)
    embed_each = ModelMethod(_embed_each)
    embed_tokens = ModelMethod(values(_embed_tokens))
    embed_tokens_each = ModelMethod(_embed_tokens)
    embed_sparse = ModelMethod(values(_embed_sparse))
    embed_sparse_each = ModelMethod(_embed_sparse)
    classify = ModelMethod(values(_classify))
    classify_each = ModelMethod(_classify)
    classify_zero_shot = ModelMethod(values(_classify_zero_shot))
    classify_zero_shot_each = ModelMethod(_classify_zero_shot)
    rerank = ModelMethod(_rerank)
    rerank_each = ModelMethod(_score_documents)
    tag = ModelMethod(values(_tag))
    tag_each = ModelMethod(_tag)
    answer = ModelMethod(values(_answer))
    answer_each = ModelMethod(_answer)
    fill_mask = ModelMethod(values(_fill_mask))
    fill_mask_each = ModelMethod(_fill_mask)
    tokenize = ModelMethod(values(_tokenize))
    tokenize_each = ModelMethod(_tokenize)
    count_tokens = ModelMethod(values(_count_tokens))
    count_tokens_each = ModelMethod(_count_tokens)
    detokenize = ModelMethod(_detokenize)
