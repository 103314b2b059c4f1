"""feature-extraction: vectors of texts, and of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from bertd.v1 import inference_pb2 as pb
from numpy.typing import NDArray

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, how
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import WindowOptions
from bertd_client.calling.responses import each, settled, vectors
from bertd_client.errors import BertdError
from bertd_client.tasks.tokens import Token, read_token


class EmbedOptions(WindowOptions, total=False):
    """Of ``embed`` and ``embed_tokens``."""

    prompt_name: str | None
    """Prompt of the model to put before each text; the model's default one if it is left out, none
    if it is the empty string."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Answered):
    """The vector of one text."""

    vector: NDArray[np.float32]
    """The embedding, one-dimensional."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenEmbeddings(Answered):
    """The vectors of one text's tokens."""

    vectors: NDArray[np.float32]
    """Of shape (tokens, dimensions), special tokens included."""
    text_tokens: tuple[Token, ...]
    """The tokens, one for each row."""


def _embedding(result: pb.EmbedResult, response: pb.EmbedResponse) -> Embedding:
    vector = vectors(result.embedding, 1, response.dimensions)[0]
    return Embedding(vector=vector, **how(result))


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
_EMBED_TOKENS = Rpc(
    "embed_tokens",
    pb.EmbedTokensRequest,
    "texts",
    EmbedOptions,
    requests.texts,
    each(_token_embeddings),
    # 16 texts of 512 tokens and 1,024 dimensions are 32 MiB; what is larger is halved on the way.
    at_once=16,
)


def embed(texts: Sequence[str], **options: Unpack[EmbedOptions]) -> BulkRequest[Embedding]:
    """Computes one vector per text: an array of shape (texts, dimensions)."""
    return _EMBED.bulk(texts, options)


def embed_tokens(
    texts: Sequence[str], **options: Unpack[EmbedOptions]
) -> BulkRequest[TokenEmbeddings]:
    """Computes one vector per token of each text."""
    return _EMBED_TOKENS.bulk(texts, options)


def stacked(outcomes: Sequence[Embedding | BertdError]) -> NDArray[np.float32]:
    """Joins the vectors of all texts, one row each; raises as :func:`settled` does."""
    return np.stack([one.vector for one in settled(outcomes)])
