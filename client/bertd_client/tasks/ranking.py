"""text-ranking: documents by their relevance to a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Answered, how
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import WindowOptions
from bertd_client.calling.responses import Outcomes, broken, outcome_of
from bertd_client.errors import BertdError


class RerankOptions(WindowOptions, total=False):
    """Of ``rerank``."""

    top_n: int
    """How many documents to give, best first; all by default."""
    score_function: Literal["sigmoid", "none"] | None
    """How scores come from logits; as the model says by default."""
    prompt_name: str | None
    """Prompt of the model to put before the query, and before no document; the model's default one
    if it is left out, none if it is the empty string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Answered):
    """A document with its place in the order."""

    index: int
    """Which of the call's documents, from 0."""
    score: float
    """The higher the more relevant."""


def _ranked(response: pb.RerankResponse, places: Sequence[int]) -> Outcomes[Ranked]:
    """Reads documents with their places; those beyond top_n have none."""
    for result in response.results:
        if result.index >= len(places):
            raise broken(f"index {result.index} for {len(places)} documents")
        place = places[result.index]

        def read(result: pb.RerankResult, _: object, place: int = place) -> Ranked:
            return Ranked(index=place, score=result.score, **how(result))

        yield place, outcome_of(result, response, read)


def _in_order(outcomes: Sequence[Ranked | BertdError], top_n: int = 0) -> list[Ranked | BertdError]:
    """The documents of all calls: best first, equal ones as given; errors last, all of them."""
    good = [one for one in outcomes if isinstance(one, Ranked)]
    good.sort(key=lambda one: (-one.score, one.index))
    return [*good[: top_n or None], *(one for one in outcomes if isinstance(one, BertdError))]


_RERANK = Rpc("rerank", pb.RerankRequest, "documents", RerankOptions, requests.texts, _ranked)


def rerank(
    query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
) -> BulkRequest[Ranked]:
    """Orders documents by relevance to a query: best first, equal ones as given.

    The same, with the errors of documents after what could be scored.
    """
    arrange = partial(_in_order, top_n=options.get("top_n") or 0)
    return _RERANK.bulk(documents, options, arrange=arrange, query=query)
