"""feature-extraction: a vector of each text, or of each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Float32Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.vectors import (
    AS_COMPUTED,
    Vector,
    VectorFormat,
    VectorFormatter,
    of_length_one,
)
from bertd_server.tasks.windows import merged, news
from bertd_server.tokenization.budget import RESULT_BYTES, TOKEN_BYTES
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading
from bertd_server.tokenization.token_list import TokenList

_TASK = "feature-extraction"


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Float32 `[tokens, dimensions]`, and the tokens, special ones included."""

    vectors: Float32Array
    tokens: TokenList


async def embed(  # noqa: PLR0913 - options by keyword
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    prompt_name: str | None = None,
    form: VectorFormat = AS_COMPUTED,
) -> list[Reply[Vector]]:
    """Compute the vector of each text: float32 `[dimensions]`, or as `form` says.

    Of windows, the mean of their vectors, each weighted by the tokens that no earlier window has
    read; of length one again where the model normalises, and so is what has been cut.

    Args:
        model: for feature-extraction.
        texts: no pairs.
        fit: what to do with long texts.
        caller: how long they wait.
        prompt_name: a prompt of the model; None for its default, "" for none.
        form: how many values of each vector, and as which numbers.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "Embed", _TASK)
    normalized = model.manifest.normalized
    formatter = VectorFormatter.of(form, model.manifest.dimensions, normalize=normalized)
    size = RESULT_BYTES + formatter.bytes

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[Vector]:
        if len(outputs) == 1:
            return formatter(outputs[0][bundle.SENTENCE_EMBEDDING][0])
        vectors = np.concatenate([each[bundle.SENTENCE_EMBEDDING] for each in outputs])
        weights = yield from news(reading)
        mean: Float32Array = np.average(vectors, axis=0, weights=weights).astype(np.float32)
        return formatter(of_length_one(mean) if normalized else mean)

    query = TaskQuery(
        (bundle.SENTENCE_EMBEDDING,),
        conclude,
        prompt=model.prompt(prompt_name),
        answer_bytes=lambda _: size,
    )
    return await ask(model, texts, fit, caller, query)


async def embed_tokens(  # noqa: PLR0913 - options by keyword
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    prompt_name: str | None = None,
    padded: int = 0,
) -> list[Reply[TokenVectors]]:
    """Compute the vector of each token, as the model's last layer has it.

    Of windows, each token's vector is from the window in which it has more context.

    Args:
        model: for feature-extraction.
        texts: no pairs.
        fit: what to do with long texts.
        caller: how long they wait.
        prompt_name: a prompt of the model; None for its default, "" for none.
        padded: bytes of a token in an answer in which each text has as many as the longest; 0
            where each has its own.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "EmbedTokens", _TASK)
    prompt = model.prompt(prompt_name)
    size = padded or TOKEN_BYTES + 4 * model.manifest.hidden_size

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[TokenVectors]:
        places, vectors = yield from merged(reading, outputs, bundle.TOKEN_EMBEDDINGS)
        yield
        tokens = TokenList.of(reading.encoding, model.tokenizer, shift=len(prompt), places=places)
        return TokenVectors(vectors, tokens)

    query = TaskQuery(
        (bundle.TOKEN_EMBEDDINGS,),
        conclude,
        offsets=True,
        prompt=prompt,
        token_bytes=size,
        padded=padded > 0,
    )
    return await ask(model, texts, fit, caller, query)
