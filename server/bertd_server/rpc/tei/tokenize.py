"""tei.v1.Tokenize: texts to tokens and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc import memory
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.service import TeiService, answered, holding, streamed
from bertd_server.tasks import footprint
from bertd_server.tokenization.reader import Input
from bertd_server.tokenization.tokens import Places, Token, tokens_of

MOST_IDS = 100_000
_INLINE_IDS = 2_000  # more would hold the event loop up


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
        (encoding,) = await model.encode(inputs, special=request.add_special_tokens)
        if isinstance(encoding, InvalidInput):
            raise encoding
        places = Places(text)
        return pb.EncodeResponse(
            tokens=[_token(token, text, places) for token in tokens_of(encoding)]
        )

    @holding
    async def _decode(
        self,
        model: Model,
        request: pb.DecodeRequest,
        context: Context[Any, Any],  # noqa: ARG002 - as the rest
    ) -> pb.DecodeResponse:
        ids = list(request.ids)
        if not 1 <= len(ids) <= MOST_IDS:
            raise InvalidInput(
                f"ids has {len(ids)} entries: send 1 to {MOST_IDS:,} token ids", field="ids"
            )
        size = model.manifest.vocab_size
        for place, id_ in enumerate(ids):
            if id_ >= size:
                raise InvalidInput(
                    f"ids[{place}] is {id_}: the vocabulary has ids below {size}",
                    field=f"ids[{place}]",
                )
        decode = partial(
            model.tokenizer.decode, ids, skip_special_tokens=request.skip_special_tokens
        )
        text: str = decode() if len(ids) <= _INLINE_IDS else await asyncio.to_thread(decode)
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
