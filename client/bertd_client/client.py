"""The client for ordinary code; :mod:`bertd_client.async_client` is its twin for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from bertd.v1 import models_pb2
from bertd.v1.inference_pb2_grpc import InferenceServiceStub
from bertd.v1.models_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray

from bertd_client import messages
from bertd_client.channel import OPTIONS
from bertd_client.errors import BertdError, from_rpc_error
from bertd_client.messages import Embedding, LongText, ModelInfo, Priority


class Client:
    """A connection to one server; threads may share it.

    ::

        with Client("127.0.0.1:8001") as client:
            vectors = client.embed(["one text", "another"])

    Args:
        address: Host and port, or any other gRPC target, such as ``unix:/run/bertd.sock``.
    """

    def __init__(self, address: str = "127.0.0.1:8001") -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._inference = InferenceServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def embed(  # noqa: PLR0913 - one parameter per field of the request
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        long_text: LongText = "error",
        prompt_name: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
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
            self.embed_each(
                texts,
                model=model,
                long_text=long_text,
                prompt_name=prompt_name,
                priority=priority,
                timeout=timeout,
            )
        )

    def embed_each(  # noqa: PLR0913 - one parameter per field of the request
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        long_text: LongText = "error",
        prompt_name: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
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
            response = self._inference.Embed(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return messages.outcomes(response, len(request.texts))

    def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Describes every model of the server.

        Raises:
            BertdError: The call failed.
        """
        try:
            response = self._models.ListModels(models_pb2.ListModelsRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return [messages.model_info(model) for model in response.models]

    def get_model(self, name: str = "", *, timeout: float | None = None) -> ModelInfo:
        """Describes one model; the empty name means the server's default.

        Raises:
            NotFound: The server has no such model.
            BertdError: The call failed otherwise.
        """
        try:
            response = self._models.GetModel(models_pb2.GetModelRequest(name=name), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return messages.model_info(response.model)

    def close(self) -> None:
        """Closes the connection; calls that still run are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
