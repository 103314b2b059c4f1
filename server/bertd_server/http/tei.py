"""text-embeddings-inference over HTTP: its own routes, and `POST /` for other tools.

Where its gRPC takes one text, HTTP takes one or several. What is the same is asked of
:mod:`bertd_server.rpc.tei`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import bertd
from bertd.tei.v1 import tei_pb2 as pb
from pydantic import Field

from bertd_server.errors import InvalidInput, Starting
from bertd_server.http import answers
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import tei_form
from bertd_server.http.fields import (
    Anything,
    Body,
    Texts,
    Truncating,
    Whole,
    refuse_empty,
    shown,
    strings_of,
    texts_of,
    tokens_of,
    values_of,
)
from bertd_server.http.front import Handler, Route
from bertd_server.http.replies import HttpReply, json_reply, listed
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.checks import check_count, check_together
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.tei.embed import shaped
from bertd_server.rpc.tei.info import InfoService
from bertd_server.rpc.tei.predict import predicted
from bertd_server.rpc.tei.tokenize import TokenizeService
from bertd_server.tasks import embedding, sparse, vectors
from bertd_server.tasks.ask import CallContext, Reply
from bertd_server.tasks.classification import LabelScore
from bertd_server.tokenization.reader import Input

T = TypeVar("T")


class EmbedBody(Truncating):
    """Texts to embed."""

    inputs: Texts = Field(description="a text, or a list of texts")
    normalize: bool | None = Field(None, description="of length one; true by default")
    dimensions: Whole | None = Field(None, ge=0, description="first values of each vector")
    prompt_name: str | None = Field(None, description="a prompt of the model, before each text")


class PredictBody(Truncating):
    """Texts or pairs to classify."""

    inputs: Anything = Field(
        description="a text, a pair as a list of two, or a list of lists of one or two"
    )
    raw_scores: bool | None = Field(None, description="logits, not probabilities")


class SimilarityOf(Body):
    """A text, and others."""

    source_sentence: str = Field(description="the text that others are compared with")
    sentences: list[str] = Field(description="the others")


class SimilarityBody(Body):
    """Texts to compare."""

    inputs: SimilarityOf
    parameters: Truncating | None = None


class TokenizeBody(Body):
    """Texts to tokenise."""

    inputs: Texts = Field(description="a text, or a list of texts")
    add_special_tokens: bool | None = Field(None, description="true by default")
    prompt_name: str | None = Field(None, description="a prompt of the model, before each text")


class DecodeBody(Body):
    """Token ids to write as texts."""

    ids: Anything = Field(description="token ids, or a list of lists of them")
    skip_special_tokens: bool | None = Field(None, description="true by default")


class TeiCalls:
    """Answers clients of text-embeddings-inference."""

    def __init__(
        self,
        models: Catalogue,
        limits: CallLimits,
        *,
        serving: Callable[[], bool],
        info: InfoService,
        tokens: TokenizeService,
    ) -> None:
        """Serve models.

        Args:
            models: looked up anew for each call.
            limits: of calls.
            serving: tells whether calls can be answered now.
            info: describes the server.
            tokens: tokenises.
        """
        self._models = models
        self._limits = limits
        self._serving = serving
        self._info = info
        self._tokens = tokens

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        yield _post("/embed", self.embed, "vectors of texts", EmbedBody, answers.VECTORS)
        yield _post(
            "/embed_all", self.embed_all, "vectors of tokens", EmbedBody, answers.TOKEN_VECTORS
        )
        yield _post(
            "/embed_sparse",
            self.embed_sparse,
            "sparse vectors",
            EmbedBody,
            answers.SPARSE,
        )
        yield _post("/predict", self.predict, "labels of texts", PredictBody, answers.LABELS)
        yield _post("/similarity", self.compare, "cosines", SimilarityBody, answers.COSINES)
        yield _post("/tokenize", self.tokenize, "tokens of texts", TokenizeBody, answers.TOKENS)
        yield _post("/decode", self.decode, "texts of token ids", DecodeBody, answers.TEXTS)
        yield _get("/info", self.info, "the model, and limits", answers.INFO, public=False)
        yield _get("/health", self.health, "200 while it answers", answers.HEALTH, public=True)

    async def embed(self, call: HttpCall, body: bytes) -> HttpReply:
        """Embed texts."""
        return await self.embed_texts(call, EmbedBody.read(body))

    async def embed_texts(self, call: HttpCall, request: EmbedBody) -> HttpReply:
        """Embed texts."""
        texts = await self._texts(request.inputs)
        wanted = request.dimensions or None
        with self._models.find(call.model()) as model:
            vectors.check_dimensions(wanted, model.manifest.dimensions)
            caller = call.caller(self._limits.max_message_bytes)
            replies = await embedding.embed(
                model, texts, request.fit(), caller, prompt_name=request.prompt_name
            )
            normalize = request.normalize is not False
            found = (shaped(one, model, wanted, normalize=normalize) for one in values_of(replies))
            _count(call, texts, replies)
            return await _written(model, found, caller)

    async def embed_all(self, call: HttpCall, body: bytes) -> HttpReply:
        """Embed the tokens of texts."""
        request = EmbedBody.read(body)
        texts = await self._texts(request.inputs)
        with self._models.find(call.model()) as model:
            caller = call.caller(self._limits.max_message_bytes)
            replies = await embedding.embed_tokens(
                model, texts, request.fit(), caller, prompt_name=request.prompt_name
            )
            _count(call, texts, replies)
            return await _written(model, (one.vectors for one in values_of(replies)), caller)

    async def embed_sparse(self, call: HttpCall, body: bytes) -> HttpReply:
        """Weigh the vocabulary for texts."""
        request = EmbedBody.read(body)
        texts = await self._texts(request.inputs)
        with self._models.find(call.model()) as model:
            caller = call.caller(self._limits.max_message_bytes)
            replies = await sparse.embed_sparse(
                model, texts, request.fit(), caller, prompt_name=request.prompt_name
            )
            _count(call, texts, replies)
            return await _written(model, map(_weights, values_of(replies)), caller)

    async def predict(self, call: HttpCall, body: bytes) -> HttpReply:
        """Classify texts and pairs."""
        request = PredictBody.read(body)
        inputs, single = _pairs(request.inputs, self._limits.max_texts)
        refuse_empty(inputs)
        with self._models.find(call.model()) as model:
            caller = call.caller(self._limits.max_message_bytes)
            replies = await predicted(
                model, inputs, request.fit(), caller, raw_scores=bool(request.raw_scores)
            )
            _count(call, inputs, replies)
            found = [_labels(one) for one in values_of(replies)]
            if single:
                return json_reply(found[0])
            return await _written(model, found, caller)

    async def compare(self, call: HttpCall, body: bytes) -> HttpReply:
        """Compare texts."""
        return await self.compare_texts(call, SimilarityBody.read(body))

    async def compare_texts(self, call: HttpCall, request: SimilarityBody) -> HttpReply:
        """Compare texts: the cosine of the first with each of the others."""
        given, parameters = request.inputs, request.parameters or Truncating()
        check_count(len(given.sentences), self._limits.max_texts - 1, "inputs.sentences")
        texts = [
            Input(given.source_sentence, field="inputs.source_sentence"),
            *(
                Input(text, field=f"inputs.sentences[{number}]")
                for number, text in enumerate(given.sentences)
            ),
        ]
        refuse_empty(texts)
        with self._models.find(call.model()) as model:
            caller = call.caller(self._limits.max_message_bytes)
            replies = await embedding.embed(model, texts, parameters.fit(), caller)
            first, *others = map(vectors.of_length_one, values_of(replies))
            _count(call, texts, replies)
            return json_reply([float(first @ other) for other in others])

    async def tokenize(self, call: HttpCall, body: bytes) -> HttpReply:
        """Tokenise texts."""
        request = TokenizeBody.read(body)
        texts = strings_of(request.inputs, "inputs", self._limits.max_texts)
        check_together(sum(map(len, texts)), "characters", "inputs")
        found: list[Any] = []
        for text in texts:
            asked = pb.EncodeRequest(
                inputs=text, add_special_tokens=request.add_special_tokens is not False
            )
            if request.prompt_name is not None:
                asked.prompt_name = request.prompt_name
            response = await _by_itself(self._tokens.Tokenize(asked, call))  # type: ignore[arg-type] # a call is
            found.append(response.tokens)
        with self._models.find(call.model()) as model:
            return HttpReply(await model.jobs.run(_token_lists(found)))

    async def decode(self, call: HttpCall, body: bytes) -> HttpReply:
        """Write token ids as texts."""
        request = DecodeBody.read(body)
        skip = request.skip_special_tokens is not False
        texts = []
        for ids in _sequences(request.ids, self._limits.max_texts):
            asked = pb.DecodeRequest(ids=ids, skip_special_tokens=skip)
            response = await _by_itself(self._tokens.Decode(asked, call))  # type: ignore[arg-type] # a context
            texts.append(response.text)
        return json_reply(texts)

    async def info(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Describe the server and its model."""
        found = await self._info.Info(pb.InfoRequest(), call)  # type: ignore[arg-type] # a context
        with self._models.find(call.model()) as model:
            said = {field.name: value for field, value in found.ListFields()}
            return json_reply(
                said
                | {
                    "model_sha": found.model_sha or None,
                    "model_type": _model_type(model, found),
                    "auto_truncate": False,
                    "version": bertd.__version__,
                    "sha": None,
                    "docker_label": None,
                }
            )

    async def health(self, _call: HttpCall, _body: bytes) -> HttpReply:
        """Say whether calls can be answered now."""
        if not self._serving():
            raise Starting("the server takes no calls at this moment: ask again")
        return json_reply({"status": "ok", "unix": time.time()})

    async def _texts(self, given: Any) -> list[Input]:
        texts = await texts_of(given, "inputs", self._limits.max_texts)
        refuse_empty(texts)
        return texts


def _post(
    path: str, answer: Handler, meaning: str, body: type[Body], gives: answers.Schema
) -> Route:
    return Route("POST", path, answer, tei_form, meaning, body=body, gives=gives)


def _get(path: str, answer: Handler, meaning: str, gives: answers.Schema, *, public: bool) -> Route:
    return Route("GET", path, answer, tei_form, meaning, scope=None, public=public, gives=gives)


async def _by_itself(work: Coroutine[Any, Any, T]) -> T:
    """Answer a part of a call in a task of its own, with whose end its memory is given back.

    A call that kept the memory of one part while it waits for that of the next could wait for
    another such call for ever.
    """
    return await asyncio.create_task(work)


async def _written(model: Model, found: Iterable[Any], caller: CallContext) -> HttpReply:
    """A JSON list, a part at a time."""
    return HttpReply(await model.jobs.run(listed(found), caller.deadline))


def _weights(vector: sparse.SparseVector) -> list[dict[str, Any]]:
    pairs = zip(vector.indices.tolist(), vector.values, strict=True)
    return [{"index": index, "value": value} for index, value in pairs]


def _labels(found: list[LabelScore]) -> list[dict[str, Any]]:
    return [{"score": one.score, "label": one.label} for one in found]


def _pairs(given: Any, most: int) -> tuple[list[Input], bool]:
    """Texts and pairs, and whether there is one that is not in a list of its own."""
    if isinstance(given, str) or (
        isinstance(given, list) and given and all(isinstance(one, str) for one in given)
    ):
        return [_pair(given, "inputs")], True
    if not isinstance(given, list):
        raise InvalidInput(f"inputs is {shown(given)}: send a text or a list", field="inputs")
    check_count(len(given), most, "inputs")
    return [_pair(one, f"inputs[{number}]") for number, one in enumerate(given)], False


def _pair(given: Any, field: str) -> Input:
    texts = [given] if isinstance(given, str) else given
    if (
        not isinstance(texts, list)
        or len(texts) not in {1, 2}
        or not all(isinstance(one, str) for one in texts)
    ):
        raise InvalidInput(
            f"{field} is {shown(given)}: send a text, or a list of two that belong together",
            field=field,
        )
    pair = texts[1] if len(texts) > 1 else None
    return Input(texts[0], pair, f"{field}[0]" if pair else field, f"{field}[1]")


def _sequences(given: Any, most: int) -> list[list[int]]:
    """Token ids, as one list or as several."""
    if not isinstance(given, list) or not given:
        raise InvalidInput(f"ids is {shown(given)}: send a list of token ids", field="ids")
    rows = given if isinstance(given[0], list) else [given]
    check_count(len(rows), most, "ids")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not all(
            type(one) is int and 0 <= one < 2**32 for one in row
        ):
            raise InvalidInput(
                f"ids[{number}] is {shown(row)}: send whole numbers from 0 on", field="ids"
            )
    return rows


def _token_lists(found: list[Any]) -> Any:
    """The tokens of texts, as lists of objects."""
    rows = []
    for tokens in found:
        row = yield from listed(
            {
                "id": one.id,
                "text": one.text,
                "special": one.special,
                "start": one.start if one.HasField("start") else None,
                "stop": one.stop if one.HasField("stop") else None,
            }
            for one in tokens
        )
        rows.append(row)
    return b"[%s]" % b",".join(rows)


def _model_type(model: Model, found: pb.InfoResponse) -> Mapping[str, Any]:
    """The model's kind, with what its clients want to know of it."""
    manifest = model.manifest
    if found.model_type == pb.MODEL_TYPE_EMBEDDING:
        return {"embedding": {"pooling": "+".join(manifest.pooling) or "splade"}}
    labels = list(manifest.labels) or ["LABEL_0"]
    names = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    classifier = found.model_type == pb.MODEL_TYPE_CLASSIFIER
    return {"classifier" if classifier else "reranker": names}


def _count(call: HttpCall, inputs: list[Input], replies: list[Reply[Any]]) -> None:
    """Headers that say what was computed."""
    call.answered += [
        ("x-compute-characters", str(sum(one.characters for one in inputs))),
        ("x-compute-tokens", str(tokens_of(replies))),
    ]
