"""tei.v1.Tokenize: texts to tokens and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context
from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc import memory
from bertd_server.rpc.encoding import PARTS
from bertd_server.rpc.limits import MOST_IDS
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.service import TeiService, answered, holding, streamed
from bertd_server.scheduling.executor import LONG, Steps
from bertd_server.tasks import footprint
from bertd_server.tasks.decoding import written
from bertd_server.tokenization.budget import Budget, answer_budget
from bertd_server.tokenization.details import Details
from bertd_server.tokenization.reader import Input
from bertd_server.tokenization.token_list import TokenList
from bertd_server.tokenization.tokens import Places, Token

_IDS_AT_ONCE = 4_000  # are read in some tenths of a ms


class TokenizeService(TeiService, tei_pb2_grpc.TokenizeServicer):
    """Tokenises texts."""

    async def Tokenize(  # noqa: N802 - the RPC's name
        self, request: pb.EncodeRequest, context: Context[pb.EncodeRequest, pb.EncodeResponse]
    ) -> pb.EncodeResponse:
        """Tokenise a text."""
        return await answered(self._tokenize, request, context)

    async def TokenizeStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.EncodeRequest],
        context: Context[pb.EncodeRequest, pb.EncodeResponse],
    ) -> AsyncIterator[pb.EncodeResponse]:
        """Tokenise texts."""
        async for response in streamed(self._tokenize, request_iterator, context, self._closing):
            yield response

    async def Decode(  # noqa: N802 - the RPC's name
        self, request: pb.DecodeRequest, context: Context[pb.DecodeRequest, pb.DecodeResponse]
    ) -> pb.DecodeResponse:
        """Write token ids as a text."""
        return await answered(self._decode, request, context)

    async def DecodeStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.DecodeRequest],
        context: Context[pb.DecodeRequest, pb.DecodeResponse],
    ) -> AsyncIterator[pb.DecodeResponse]:
        """Write token ids as texts."""
        async for response in streamed(self._decode, request_iterator, context, self._closing):
            yield response

    @holding
    async def _tokenize(
        self,
        model: Model,
        request: pb.EncodeRequest,
        context: Context[Any, Any],
    ) -> pb.EncodeResponse:
        requests.check_text(request.inputs)
        prompt = model.prompt(request.prompt_name if request.HasField("prompt_name") else None)
        text = prompt + request.inputs
        inputs = [Input(text, field="inputs")]
        await memory.reserve(model, *footprint.of_tokens(inputs), context, "inputs")
        (encoding,) = await model.encode(
            inputs,
            special=request.add_special_tokens,
            answer_bytes=self._limits.max_message_bytes,
        )
        if isinstance(encoding, InvalidInput):
            raise encoding
        return await model.jobs.run(_described(encoding, text, model.tokenizer))

    @holding
    async def _decode(
        self,
        model: Model,
        request: pb.DecodeRequest,
        context: Context[Any, Any],
    ) -> pb.DecodeResponse:
        if not 1 <= len(request.ids) <= MOST_IDS:
            raise InvalidInput(
                f"ids has {len(request.ids)} entries: send 1 to {MOST_IDS:,} token ids", field="ids"
            )
        await memory.reserve(model, footprint.of_ids(len(request.ids)), 0, context, "ids")
        budget = answer_budget(self._limits.max_message_bytes)
        return await model.jobs.run(_written(model, request, budget))


def _described(encoding: Details, text: str, vocabulary: Tokenizer) -> Steps[pb.EncodeResponse]:
    """The tokens of a text."""
    places, response, found = Places(text), pb.EncodeResponse(), TokenList.of(encoding, vocabulary)
    yield
    for start in range(0, len(found), PARTS):
        response.tokens.extend(
            [_token(token, text, places) for token in found[start : start + PARTS]]
        )
        yield
    return response


def _written(model: Model, request: pb.DecodeRequest, budget: Budget) -> Steps[pb.DecodeResponse]:
    """Token ids as a text, a part at a time: a stream has many requests of many ids in work.

    Raises:
        InvalidInput: an id is beyond the vocabulary, or the text too large for an answer.
    """
    given, ids, size = request.ids, list[int](), 0
    if len(given) > _IDS_AT_ONCE:
        yield LONG
    vocabulary = model.manifest.vocab_size
    for begin in range(0, len(given), _IDS_AT_ONCE):
        part = list(given[begin : begin + _IDS_AT_ONCE])
        if (largest := max(part)) >= vocabulary:
            field = f"ids[{begin + part.index(largest)}]"
            raise InvalidInput(
                f"{field} is {largest}: the vocabulary has ids below {vocabulary}", field=field
            )
        ids += part
        size += model.written_bytes(part)
        yield
    refused = budget.spend(size, Input("", field="ids"))
    if refused is not None:
        raise refused
    skip = request.skip_special_tokens
    text = yield from written(model.tokenizer, ids, skip_special_tokens=skip)
    return pb.DecodeResponse(text=text)


def _token(token: Token, text: str, places: Places) -> pb.SimpleToken:
    if token.special:
        return pb.SimpleToken(id=token.id, text=token.token, special=True)
    return pb.SimpleToken(
        id=token.id,
        text=text[token.start : token.end],
        start=places.offsets(0, token.start).end_byte,
        stop=places.offsets(0, token.end).end_byte,
    )
