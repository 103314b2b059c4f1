"""The client for asyncio; :mod:`bertd_client.client` is its twin for ordinary code."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
import numpy as np
from bertd.v1 import models_pb2
from bertd.v1.inference_pb2_grpc import InferenceServiceStub
from bertd.v1.models_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray

from bertd_client import messages
from bertd_client.channel import OPTIONS
from bertd_client.errors import BertdError, from_rpc_error
from bertd_client.messages import Embedding, LongText, ModelInfo, Priority


class AsyncClient:
    """A connection to one server; make it and use it in one event loop.

    ::

        async with AsyncClient("127.0.0.1:8001") as client:
            vectors = await client.embed(["one text", "another"])

    Args:
        address: Host and port, or any other gRPC target, such as ``unix:/run/bertd.sock``.
    """

    def __init__(self, address: str = "127.0.0.1:8001") -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._inference = InferenceServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    async def embed(  # noqa: PLR0913 - one parameter per field of the request
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        long_text: LongText = "error",
        prompt_name: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline is gRPC's
    ) -> NDArray[np.float32]:
        """Computes one vector per text.

        Args:
            texts: The texts; a single string is refused.
            model: Name of the model; empty means the server's default.
            long_text: What to do with a text longer than the model reads.
            prompt_name: Prompt of the model to put before each text; ``None`` means the
                model's default, the empty string means no prompt.
            priority: "bulk" goes after what is interactive, when the server has more than it can
                do at once.
            timeout: Seconds for the whole call, retries included; ``None`` means no limit.

        Returns:
            An array of shape (texts, dimensions).

        Raises:
            BertdError: The call failed, or a text did: then ``index`` says which.
        """
        return messages.stack(
            await self.embed_each(
                texts,
                model=model,
                long_text=long_text,
                prompt_name=prompt_name,
                priority=priority,
                timeout=timeout,
            )
        )

    async def embed_each(  # noqa: PLR0913 - one parameter per field of the request
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        long_text: LongText = "error",
        prompt_name: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline is gRPC's
    ) -> list[Embedding | BertdError]:
        """Like :meth:`embed`, with the outcome of each text in order and how it came about.

        Raises:
            BertdError: The call failed as a whole. It does so too when none of its texts can
                be answered, with the error of the first.
        """
        request = messages.embed_request(
            texts,
            model=model,
            long_text=long_text,
            prompt_name=prompt_name,
            priority=priority,
        )
        try:
            response = await self._inference.Embed(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return messages.outcomes(response, len(request.texts))

    async def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:  # noqa: ASYNC109
        """Describes every model of the server.

        Raises:
            BertdError: The call failed.
        """
        try:
            response = await self._models.ListModels(
                models_pb2.ListModelsRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return [messages.model_info(model) for model in response.models]

    async def get_model(self, name: str = "", *, timeout: float | None = None) -> ModelInfo:  # noqa: ASYNC109
        """Describes one model; the empty name means the server's default.

        Raises:
            NotFound: The server has no such model.
            BertdError: The call failed otherwise.
        """
        try:
            response = await self._models.GetModel(
                models_pb2.GetModelRequest(name=name), timeout=timeout
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return messages.model_info(response.model)

    async def close(self) -> None:
        """Closes the connection; calls that still run are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
