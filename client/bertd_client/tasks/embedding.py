"""feature-extraction: vectors of texts, and of their tokens; fill-mask: sparse ones of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
from bertd.v1 import inference_pb2 as pb
from numpy.typing import ArrayLike, NDArray

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, how
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import TaskOptions, WindowOptions
from bertd_client.calling.responses import broken, each, quantized, settled, vectors
from bertd_client.errors import BertdError
from bertd_client.tasks.tokens import Token, read_token


class EmbedTokensOptions(WindowOptions, total=False):
    """Of ``embed_tokens``."""

    prompt_name: str | None
    """Prompt of the model to put before each text; the model's default one if it is left out, none
    if it is the empty string."""


class EmbedOptions(EmbedTokensOptions, total=False):
    """Of ``embed``."""

    dimensions: int | None
    """How many of each vector's first values to give, of length one again where the model
    normalises; all by default."""
    output_dtype: Literal["float32", "int8", "uint8", "binary", "ubinary"] | None
    """As which numbers: "float32", the default; "int8" and "uint8", a byte for each value, which
    need ``ranges``; "binary" and "ubinary", a bit for each, eight to a byte (int8, uint8)."""
    ranges: ArrayLike | None
    """Of "int8" and "uint8", the lowest and the highest value: a pair for all dimensions, or of
    shape (2, dimensions), as sentence-transformers has them."""


class EmbedSparseOptions(TaskOptions, total=False):
    """Of ``embed_sparse``."""

    prompt_name: str | None
    """Prompt of the model to put before each text, as in ``embed``."""
    max_active_dims: int | None
    """How many weights to keep of each text, the largest; as the model says by default."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Answered):
    """The vector of one text."""

    vector: NDArray[Any]
    """The embedding, one-dimensional: float32, or int8 or uint8 with another ``output_dtype``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseEmbedding(Answered):
    """The weights of the vocabulary for one text, those above 0."""

    indices: NDArray[np.int64]
    """Token ids, ascending."""
    values: NDArray[np.float32]
    """The weight of each."""
    dimensions: int
    """Length of the whole vector: entries of the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenEmbeddings(Answered):
    """The vectors of one text's tokens."""

    vectors: NDArray[np.float32]
    """Of shape (tokens, dimensions), special tokens included."""
    text_tokens: tuple[Token, ...]
    """The tokens, one for each row."""


def _embedding(result: pb.EmbedResult, response: pb.EmbedResponse) -> Embedding:
    vector = quantized(result.embedding, response.dimensions, response.dtype)
    return Embedding(vector=vector, **how(result))


def _sparse_embedding(
    result: pb.EmbedSparseResult, response: pb.EmbedSparseResponse
) -> SparseEmbedding:
    indices = np.array(result.vector.indices, np.int64)
    values = np.array(result.vector.values, np.float32)
    if len(indices) != len(values):
        raise broken(f"{len(indices)} indices for {len(values)} values")
    dimensions = response.dimensions
    return SparseEmbedding(indices=indices, values=values, dimensions=dimensions, **how(result))


def _token_embeddings(
    result: pb.EmbedTokensResult, response: pb.EmbedTokensResponse
) -> TokenEmbeddings:
    tokens = result.vectors.tokens
    return TokenEmbeddings(
        vectors=vectors(result.vectors.vectors, len(tokens), response.dimensions),
        text_tokens=tuple(map(read_token, tokens)),
        **how(result),
    )


_EMBED = Rpc("embed", pb.EmbedRequest, "texts", EmbedOptions, requests.texts, each(_embedding))
_EMBED_SPARSE = Rpc(
    "embed_sparse",
    pb.EmbedSparseRequest,
    "texts",
    EmbedSparseOptions,
    requests.texts,
    each(_sparse_embedding),
    # Of a model that was not trained for it half the vocabulary has weights: 64 texts of 30,000
    # entries are 8 MiB.
    at_once=64,
)
_EMBED_TOKENS = Rpc(
    "embed_tokens",
    pb.EmbedTokensRequest,
    "texts",
    EmbedTokensOptions,
    requests.texts,
    each(_token_embeddings),
    # 16 texts of 512 tokens and 1,024 dimensions are 32 MiB; what is larger is halved on the way.
    at_once=16,
)


def embed(texts: Sequence[str], **options: Unpack[EmbedOptions]) -> BulkRequest[Embedding]:
    """Computes one vector per text: an array of shape (texts, dimensions)."""
    return _EMBED.bulk(texts, {**options, "ranges": _ranges(options.get("ranges"))})


def embed_sparse(
    texts: Sequence[str], **options: Unpack[EmbedSparseOptions]
) -> BulkRequest[SparseEmbedding]:
    """Weighs the vocabulary for each text, as SPLADE does."""
    return _EMBED_SPARSE.bulk(texts, options)


def embed_tokens(
    texts: Sequence[str], **options: Unpack[EmbedTokensOptions]
) -> BulkRequest[TokenEmbeddings]:
    """Computes one vector per token of each text."""
    return _EMBED_TOKENS.bulk(texts, options)


def _ranges(given: ArrayLike | None) -> pb.VectorRanges | None:
    """Lowest and highest values as the request has them.

    Raises:
        ValueError: They have another shape, or are no numbers.
    """
    if given is None:
        return None
    try:
        pair = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"ranges are no numbers ({error}): pass the lowest and the highest value, or an array "
            "of shape (2, dimensions)"
        ) from error
    if pair.ndim not in {1, 2} or len(pair) != 2:
        raise ValueError(
            f"ranges has shape {pair.shape}: pass (2,), the lowest and the highest value, or "
            "(2, dimensions)"
        )
    lowest, highest = pair.reshape(2, -1).tolist()
    return pb.VectorRanges(lowest=lowest, highest=highest)


def stacked(outcomes: Sequence[Embedding | BertdError]) -> NDArray[Any]:
    """Joins the vectors of all texts, one row each; raises as :func:`settled` does."""
    return np.stack([one.vector for one in settled(outcomes)])
