"""Ranking, as Cohere, Jina and text-embeddings-inference ask for it: the body decides which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from bertd_server.errors import InvalidInput
from bertd_server.http import answers
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import ranking_form, tei_form
from bertd_server.http.fields import Anything, Truncating, Whole, shown, tokens_of, values_of
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, listed, within
from bertd_server.models.catalogue import Catalogue
from bertd_server.rpc.checks import check_count
from bertd_server.rpc.limits import CallLimits
from bertd_server.system.call_metrics import made_id
from bertd_server.tasks import ranking
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import Fit, Input

_INFINITY = "/rerank"
_PATHS = (_INFINITY, "/v1/rerank", "/v2/rerank")


class RerankBody(Truncating):
    """A query with `documents` (Cohere, Jina), or with `texts` (text-embeddings-inference)."""

    query: str = Field(description="what is looked for")
    documents: Anything = Field(None, description="texts, or objects with a text")
    texts: Anything = Field(None, description="texts, in the place of documents")
    model: str | None = Field(None, description="its name; not needed where there is one")
    top_n: Whole | None = Field(None, ge=0, description="how many documents, best first; 0 for all")
    return_documents: bool | None = Field(None, description="send the documents back")
    return_text: bool | None = Field(None, description="send the texts back")
    raw_scores: bool | None = Field(None, description="of texts: logits, not probabilities")


class RerankCalls:
    """Answers rerankers' clients."""

    def __init__(self, models: Catalogue, limits: CallLimits) -> None:
        """Serve models, looked up anew for each call."""
        self._models = models
        self._limits = limits

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        for path in _PATHS:
            yield Route(
                "POST",
                path,
                self.rank,
                ranking_form,
                "documents by relevance",
                body=RerankBody,
                gives=answers.RANKS,
            )

    async def rank(self, call: HttpCall, body: bytes) -> HttpReply:
        """Order documents, or texts."""
        request = RerankBody.read(body)
        if (request.texts is None) == (request.documents is None):
            raise InvalidInput(
                "the body has both documents and texts, or neither: send documents for Cohere's "
                "and Jina's answer, or texts for that of text-embeddings-inference",
                field="documents",
            )
        name, given = "documents", request.documents
        if request.texts is not None:
            name, given = "texts", request.texts
            call.form = tei_form
        texts = _texts(given, name, self._limits.max_texts)
        # Documents are cut without being asked for, as Cohere and Jina do.
        fit = request.fit() if name == "texts" else Fit("truncate", second_only=True, blank=True)
        if not request.query:
            raise InvalidInput("query is empty: send a text", field="query", reason="empty")
        pairs = [
            Input(request.query, text, "query", f"{name}[{number}]")
            for number, text in enumerate(texts)
        ]
        with self._models.find(call.model(request.model)) as model:
            caller = call.caller(self._limits.max_message_bytes)
            raw = bool(request.raw_scores) and name == "texts"
            replies = await ranking.score_pairs(
                model, pairs, fit, caller, score_function="none" if raw else "sigmoid"
            )
            order = _order(values_of(replies))
            if name == "texts":
                entries = listed(_ranks(order, texts, with_text=bool(request.return_text)))
            else:
                entries = within(
                    "results",
                    _results(
                        order[: request.top_n or None],
                        texts,
                        with_text=bool(request.return_documents),
                        bare=call.path == _INFINITY,
                    ),
                    _rest(model.name, replies),
                )
            return HttpReply(await model.jobs.run(entries, caller.deadline))


def _texts(given: Any, field: str, most: int) -> list[str]:
    if not isinstance(given, list):
        raise InvalidInput(f"{field} is {shown(given)}: send a list", field=field)
    check_count(len(given), most, field)
    texts = []
    for number, one in enumerate(given):
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            place = f"{field}[{number}]"
            raise InvalidInput(
                f"{place} is {shown(one)}: send a string, or an object with a text", field=place
            )
        texts.append(text)
    return texts


def _order(scores: Sequence[float]) -> list[tuple[int, float]]:
    return sorted(enumerate(scores), key=lambda one: (-one[1], one[0]))


def _ranks(
    order: Sequence[tuple[int, float]], texts: Sequence[str], *, with_text: bool
) -> Iterator[dict[str, Any]]:
    for index, score in order:
        yield {"index": index, "score": score} | ({"text": texts[index]} if with_text else {})


def _results(
    order: Sequence[tuple[int, float]], texts: Sequence[str], *, with_text: bool, bare: bool
) -> Iterator[dict[str, Any]]:
    """Entries of Cohere and Jina; Infinity's have the document as a string."""
    for index, score in order:
        found: dict[str, Any] = {"index": index, "relevance_score": score}
        document: Any = texts[index] if bare else {"text": texts[index]}
        yield found | ({"document": document} if with_text else {})


def _rest(model: str, replies: Sequence[Reply[float]]) -> dict[str, Any]:
    tokens = tokens_of(replies)
    return {
        "id": made_id(),
        "object": "rerank",
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }
