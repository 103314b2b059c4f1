"""Requests from arguments and results from answers, for both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import grpc
import numpy as np
from bertd.v1 import inference_pb2, models_pb2
from numpy.typing import NDArray

from bertd_client.errors import (
    BertdError,
    FieldViolation,
    InvalidArgument,
    ServerError,
    from_status,
)

LongText = Literal["error", "truncate"]
Priority = Literal["interactive", "bulk"]

_POLICIES: dict[str, inference_pb2.LongTextPolicy.ValueType] = {
    "error": inference_pb2.LONG_TEXT_POLICY_ERROR,
    "truncate": inference_pb2.LONG_TEXT_POLICY_TRUNCATE,
}
_PRIORITIES: dict[str, inference_pb2.Priority.ValueType] = {
    "interactive": inference_pb2.PRIORITY_INTERACTIVE,
    "bulk": inference_pb2.PRIORITY_BULK,
}


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The answer to one text."""

    vector: NDArray[np.float32]
    """The embedding, one-dimensional."""
    tokens: int
    """Tokens that the model read, special tokens and prompt included."""
    truncated_tokens: int
    """Tokens that were cut off; zero unless ``long_text="truncate"``."""
    tokenize_s: float
    """Seconds of turning the call's texts into tokens."""
    queue_s: float
    """Seconds of waiting for a lane; zero if the answer came from the server's cache."""
    compute_s: float
    """Seconds of running the batch; zero likewise."""
    total_s: float
    """Seconds from the call's arrival at the server to the last of its answers."""
    batch_sequences: int
    """Texts in the batch, those of other calls included; zero if it came from the cache."""
    batch_tokens: int
    """Tokens in the batch; zero likewise."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the server describes it."""

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    dimensions: int
    max_tokens: int
    pooling: tuple[str, ...]
    normalized: bool
    prompts: Mapping[str, str]
    default_prompt_name: str
    graph_sha256: str


def embed_request(
    texts: Sequence[str],
    *,
    model: str,
    long_text: LongText,
    prompt_name: str | None,
    priority: Priority,
) -> inference_pb2.EmbedRequest:
    """Builds the request.

    Raises:
        TypeError: ``texts`` is one string, or holds something else than strings.
        ValueError: ``long_text`` is no policy, or ``priority`` no class.
        InvalidArgument: A text cannot be written as UTF-8.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError(
            f"texts is a single {type(texts).__name__}: pass a list of strings, such as [text]"
        )
    texts = list(texts)
    for index, text in enumerate(texts):
        _check_text(index, text)
    policy = _POLICIES.get(long_text)
    if policy is None:
        raise ValueError(f"long_text is {long_text!r}: pass 'error' or 'truncate'")
    urgency = _PRIORITIES.get(priority)
    if urgency is None:
        raise ValueError(f"priority is {priority!r}: pass 'interactive' or 'bulk'")
    return inference_pb2.EmbedRequest(
        model=model, texts=texts, long_text=policy, prompt_name=prompt_name, priority=urgency
    )


def _check_text(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"texts[{index}] is a {type(text).__name__}: pass strings only")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        description = (
            f"character {error.start} is a lone surrogate, which UTF-8 cannot express: "
            "decode the text with its own encoding, or with errors='replace'"
        )
        raise InvalidArgument(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"texts[{index}]: {description}",
            (FieldViolation(f"texts[{index}]", description),),
            index,
        ) from error


def outcomes(response: inference_pb2.EmbedResponse, texts: int) -> list[Embedding | BertdError]:
    """Reads the answer: one outcome per text, in the order of the request.

    Raises:
        ServerError: The answer has another number of results than there were texts.
    """
    if len(response.results) != texts:
        raise ServerError(
            grpc.StatusCode.INTERNAL,
            f"the server sent {len(response.results)} results for {texts} texts",
        )
    return [
        _outcome(result, response.dimensions, index)
        for index, result in enumerate(response.results)
    ]


def _outcome(
    result: inference_pb2.EmbedResult, dimensions: int, index: int
) -> Embedding | BertdError:
    outcome = result.WhichOneof("outcome")
    if outcome == "error":
        return from_status(result.error, index)
    if len(result.embedding) != 4 * dimensions or outcome is None:
        return ServerError(
            grpc.StatusCode.INTERNAL,
            f"the server sent {len(result.embedding)} bytes for {dimensions} float32 values",
            index=index,
        )
    return Embedding(
        vector=np.frombuffer(result.embedding, dtype="<f4").astype(np.float32),
        tokens=result.tokens.read,
        truncated_tokens=result.tokens.truncated,
        tokenize_s=result.timings.tokenize_ns / 1e9,
        queue_s=result.timings.queue_ns / 1e9,
        compute_s=result.timings.compute_ns / 1e9,
        total_s=result.timings.total_ns / 1e9,
        batch_sequences=result.batch.sequences,
        batch_tokens=result.batch.tokens,
    )


def stack(results: Sequence[Embedding | BertdError]) -> NDArray[np.float32]:
    """Joins the vectors of all texts, one row each.

    Raises:
        BertdError: That of the first text that failed; its ``index`` says which.
    """
    vectors: list[NDArray[np.float32]] = []
    for result in results:
        if isinstance(result, BertdError):
            raise result
        vectors.append(result.vector)
    return np.stack(vectors)


def model_info(model: models_pb2.Model) -> ModelInfo:
    """Reads the description of a model."""
    return ModelInfo(
        name=model.name,
        version=model.version,
        task=model.task,
        architecture=model.architecture,
        precision=model.precision,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        pooling=tuple(model.pooling),
        normalized=model.normalized,
        prompts=MappingProxyType(dict(model.prompts)),
        default_prompt_name=model.default_prompt_name,
        graph_sha256=model.graph_sha256,
    )
