"""Answers of the server to plain results.

Each reader takes a response and the places of the inputs that were asked for in it, and gives the
outcome of each by its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
import numpy as np
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import models_pb2
from numpy.typing import NDArray

from bertd_client.errors import BertdError, ServerError, from_status
from bertd_client.tasks import results

R = TypeVar("R")
Outcomes = Iterator[tuple[int, R | BertdError]]
Reader = Callable[[Any, Sequence[int]], Outcomes[R]]


def each(read: Callable[[Any, Any], R]) -> Reader[R]:
    """A reader of one result per input, in order; `read` takes it and its response.

    Raises:
        ServerError: (the reader) the response has another number of results than of inputs.
    """

    def outcomes(response: Any, places: Sequence[int]) -> Outcomes[R]:
        for result, place in _matched(response.results, places):
            yield place, _outcome(result, response, read)

    return outcomes


def plain(field: str) -> Reader[Any]:
    """A reader of a field with one value per input; why there is none stands in `errors`.

    Raises:
        ServerError: (the reader) the response has another number of values than of inputs.
    """

    def outcomes(response: Any, places: Sequence[int]) -> Outcomes[Any]:
        for index, (value, place) in enumerate(_matched(getattr(response, field), places)):
            yield place, from_status(response.errors[index]) if index in response.errors else value

    return outcomes


def _matched(found: Sequence[Any], places: Sequence[int]) -> Iterator[tuple[Any, int]]:
    if len(found) != len(places):
        raise _broken(f"{len(found)} results for {len(places)} inputs")
    return zip(found, places, strict=True)


def ranked(response: pb.RerankResponse, places: Sequence[int]) -> Outcomes[results.Ranked]:
    """Reads documents with their places; those beyond top_n have none."""
    for result in response.results:
        if result.index >= len(places):
            raise _broken(f"index {result.index} for {len(places)} documents")
        place = places[result.index]

        def read(result: pb.RerankResult, _: object, place: int = place) -> results.Ranked:
            return results.Ranked(index=place, score=result.score, **_how(result))

        yield place, _outcome(result, response, read)


def _outcome(result: Any, response: Any, read: Callable[[Any, Any], R]) -> R | BertdError:
    if result.HasField("error"):
        return from_status(result.error)
    if "outcome" in result.DESCRIPTOR.oneofs_by_name and result.WhichOneof("outcome") is None:
        return _broken("a result without an outcome")
    try:
        return read(result, response)
    except ServerError as error:
        return error


def embedding(result: pb.EmbedResult, response: pb.EmbedResponse) -> results.Embedding:
    """Reads a vector."""
    vector = _vectors(result.embedding, 1, response.dimensions)[0]
    return results.Embedding(vector=vector, **_how(result))


def token_embeddings(
    result: pb.EmbedTokensResult, response: pb.EmbedTokensResponse
) -> results.TokenEmbeddings:
    """Reads the vectors of tokens."""
    tokens = result.vectors.tokens
    return results.TokenEmbeddings(
        vectors=_vectors(result.vectors.vectors, len(tokens), response.dimensions),
        text_tokens=tuple(map(_token, tokens)),
        **_how(result),
    )


def classification(result: pb.ClassifyResult, _: object) -> results.Classification:
    """Reads labels."""
    labels = tuple(results.LabelScore(one.label, one.score) for one in result.labels.labels)
    return results.Classification(labels=labels, **_how(result))


def tagging(result: pb.TagTokensResult, _: object) -> results.Tagging:
    """Reads entities."""
    entities = tuple(
        results.Entity(
            label=one.label,
            score=one.score,
            text=one.text,
            word=one.word,
            **_stretch(one.offsets),
        )
        for one in result.entities.entities
    )
    return results.Tagging(entities=entities, **_how(result))


def answers(result: pb.AnswerResult, _: object) -> results.Answers:
    """Reads the spans of a context."""
    spans = tuple(
        results.Span(
            text=one.text, score=one.score, no_answer=one.no_answer, **_stretch(one.offsets)
        )
        for one in result.spans.spans
    )
    return results.Answers(spans=spans, **_how(result))


def filling(result: pb.FillMaskResult, _: object) -> results.Filling:
    """Reads what fits masks."""
    masks = tuple(
        results.Mask(
            candidates=tuple(
                results.Candidate(one.id, one.text, one.score, one.sequence)
                for one in mask.candidates
            ),
            **_stretch(mask.offsets),
        )
        for mask in result.masks.masks
    )
    return results.Filling(masks=masks, **_how(result))


def tokens(result: pb.TokenizeResult, _: object) -> tuple[results.Token, ...]:
    """Reads the tokens of an input."""
    return tuple(map(_token, result.tokens))


def models(response: models_pb2.ListModelsResponse) -> list[results.ModelInfo]:
    """Reads the list of models."""
    return list(map(_model, response.models))


def model(response: models_pb2.GetModelResponse) -> results.ModelInfo:
    """Reads the description of one model."""
    return _model(response.model)


def settled(outcomes: Sequence[R | BertdError]) -> list[R]:
    """Takes the answers.

    Raises:
        BertdError: That of the first input that failed; its ``index`` says which.
    """
    found: list[R] = []
    for outcome in outcomes:
        if isinstance(outcome, BertdError):
            raise outcome
        found.append(outcome)
    return found


def stacked(outcomes: Sequence[results.Embedding | BertdError]) -> NDArray[np.float32]:
    """Joins the vectors of all texts, one row each; raises as :func:`settled` does."""
    return np.stack([one.vector for one in settled(outcomes)])


def in_order(
    outcomes: Sequence[results.Ranked | BertdError], top_n: int = 0
) -> list[results.Ranked | BertdError]:
    """Orders documents: best first, equal ones as in the call; errors last, all of them."""
    good = [one for one in outcomes if isinstance(one, results.Ranked)]
    good.sort(key=lambda one: (-one.score, one.index))
    return [*good[: top_n or None], *(one for one in outcomes if isinstance(one, BertdError))]


def _how(result: Any) -> dict[str, Any]:
    """The fields of :class:`results.Answered`."""
    return {
        "tokens": result.tokens.read,
        "truncated_tokens": result.tokens.truncated,
        "windows": result.tokens.windows,
        "tokenize_s": result.timings.tokenize_ns / 1e9,
        "queue_s": result.timings.queue_ns / 1e9,
        "compute_s": result.timings.compute_ns / 1e9,
        "total_s": result.timings.total_ns / 1e9,
        "batch_sequences": result.batch.sequences,
        "batch_tokens": result.batch.tokens,
    }


def _stretch(offsets: pb.Offsets) -> dict[str, int]:
    """The fields of :class:`results.Stretch`."""
    return {
        "start": offsets.start,
        "end": offsets.end,
        "start_byte": offsets.start_byte,
        "end_byte": offsets.end_byte,
    }


def _token(token: pb.Token) -> results.Token:
    return results.Token(
        id=token.id, token=token.token, special=token.special, **_stretch(token.offsets)
    )


def _vectors(data: bytes, rows: int, dimensions: int) -> NDArray[np.float32]:
    if len(data) != 4 * rows * dimensions:
        raise _broken(f"{len(data)} bytes for {rows} x {dimensions} float32 values")
    return np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(rows, dimensions)


def _model(model: models_pb2.Model) -> results.ModelInfo:
    return results.ModelInfo(
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
        labels=tuple(model.labels),
        vocab_size=model.vocab_size,
        mask_token=model.mask_token,
    )


def _broken(what: str) -> ServerError:
    return ServerError(grpc.StatusCode.INTERNAL, f"the server sent {what}")
