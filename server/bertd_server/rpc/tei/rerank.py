"""tei.v1.Rerank: texts in the order of their relevance to a query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc.checks import check_count
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.metadata import Tally
from bertd_server.rpc.tei.service import (
    IN_WORK,
    WAITING,
    TeiService,
    answered,
    holding,
    patiently,
)
from bertd_server.tasks import ranking
from bertd_server.tasks.ask import Reply, require
from bertd_server.tokenization.reader import Input

_RANK_BYTES = 64  # of a rank in memory, beside its text; on the wire it is less


class RerankService(TeiService, tei_pb2_grpc.RerankServicer):
    """Orders texts."""

    async def Rerank(  # noqa: N802 - the RPC's name
        self, request: pb.RerankRequest, context: Context[pb.RerankRequest, pb.RerankResponse]
    ) -> pb.RerankResponse:
        """Order the texts of a request."""
        return await answered(self._rerank, request, context)

    async def RerankStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.RerankStreamRequest],
        context: Context[pb.RerankStreamRequest, pb.RerankResponse],
    ) -> pb.RerankResponse:
        """Order the texts of a stream."""
        return await answered(self._rerank_stream, request_iterator, context)

    @holding
    async def _rerank(
        self, model: Model, request: pb.RerankRequest, context: Context[Any, Any]
    ) -> pb.RerankResponse:
        require(model, "Rerank", "text-ranking")
        tally = Tally()
        check_count(len(request.texts), self._limits.max_texts, "texts")
        query = request.query  # one text for all pairs
        pairs = [
            _pair(query, text, f"texts[{number}]") for number, text in enumerate(request.texts)
        ]
        replies = await ranking.score_pairs(
            model,
            pairs,
            requests.fit(request),
            requests.caller(context, self._limits.max_message_bytes),
            score_function="none" if request.raw_scores else "sigmoid",
        )
        ranks = [
            pb.Rank(
                index=index,
                score=tally.add(reply, pair.characters),
                text=pair.pair if request.return_text else None,
            )
            for index, (reply, pair) in enumerate(zip(replies, pairs, strict=True))
        ]
        return _response(ranks, tally)

    @holding
    async def _rerank_stream(
        self,
        model: Model,
        stream: AsyncIterator[pb.RerankStreamRequest],
        context: Context[Any, Any],
    ) -> pb.RerankResponse:
        require(model, "Rerank", "text-ranking")
        tally = Tally()
        first: pb.RerankStreamRequest | None = None
        ranks: list[pb.Rank] = []
        held = 0

        async def score(
            request: pb.RerankStreamRequest, context: Context[Any, Any]
        ) -> tuple[Reply[float], Input]:
            nonlocal first
            first = first or request  # work starts in the order of the requests
            pair = _pair(request.query, request.text, "text")
            (reply,) = await ranking.score_pairs(
                model,
                [pair],
                requests.fit(request),
                requests.caller(context, self._limits.max_message_bytes),
                score_function="none" if first.raw_scores else "sigmoid",
            )
            return reply, pair

        turns = asyncio.Semaphore(WAITING)
        replies = in_order(
            stream,
            lambda request: patiently(score, request, context, turns),
            self._closing,
            IN_WORK,
        )
        async with closed_after_use(replies) as scored:
            async for reply, pair in scored:
                text = pair.pair if first is not None and first.return_text else None
                held += _RANK_BYTES + len((text or "").encode())
                if held > self._limits.max_message_bytes:
                    raise InvalidInput(
                        f"the answer to {len(ranks)} texts fills what the server sends in one "
                        f"message ({self._limits.max_message_bytes} bytes): make several streams"
                        + (", or leave return_text out" if text else ""),
                        field="text",
                    )
                score_of = tally.add(reply, pair.characters)
                ranks.append(pb.Rank(index=len(ranks), score=score_of, text=text))
        if not ranks:
            raise InvalidInput("the stream has no request: send at least one text", field="text")
        return _response(ranks, tally)


def _pair(query: str, text: str, field: str) -> Input:
    if not query:
        requests.check_text(text, "query")
    return Input(query, text, "query", field)


def _response(ranks: list[pb.Rank], tally: Tally) -> pb.RerankResponse:
    ranks.sort(key=lambda rank: (-rank.score, rank.index))
    return pb.RerankResponse(ranks=ranks, metadata=tally.metadata())
