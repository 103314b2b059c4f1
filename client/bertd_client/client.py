"""The client for ordinary code; :mod:`bertd_client.async_client` is its twin for asyncio.

What a method asks stands in :mod:`bertd_client.calling.bulk`, how it is split in
:mod:`bertd_client.calling.work`; here is only how calls are made.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import numpy as np
from bertd.v1 import models_pb2
from bertd.v1.inference_pb2_grpc import InferenceServiceStub
from bertd.v1.models_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray

from bertd_client.calling import bulk as calls
from bertd_client.calling import responses
from bertd_client.calling.bulk import Job
from bertd_client.calling.options import (
    AnswerOptions,
    CallOptions,
    ClassifyOptions,
    EmbedOptions,
    FillMaskOptions,
    RerankOptions,
    TagOptions,
    TokenizeOptions,
    ZeroShotOptions,
)
from bertd_client.calling.progress import Progress
from bertd_client.calling.work import (
    CALL_BYTES,
    CALL_INPUTS,
    CALLS_AT_ONCE,
    Chunk,
    Limits,
    Work,
    at_least_one,
)
from bertd_client.connection.channel import DEFAULT_ADDRESS, target
from bertd_client.connection.security import OPEN, Security, open_channel
from bertd_client.errors import BertdError, from_rpc_error
from bertd_client.tasks import results

R = TypeVar("R")


class Client:
    """Connections to one server or several; threads may share it.

    ::

        with Client("127.0.0.1:8001") as client:
            vectors = client.embed(["one text", "another"])

    A method raises :class:`BertdError` when a call fails or an input has no answer; its ``index``
    then says which. Its twin with ``_each`` gives the errors of inputs among the answers.

    Many inputs are split into calls that the server takes, a few of which are made at once; results
    come in the order of the inputs. The options of each method are in
    :mod:`bertd_client.calling.options`.

    Args:
        address: Host and port, or any other gRPC target, such as ``unix:/run/bertd.sock``. Calls
            take turns among several (a sequence, or separated by commas) and among the addresses
            of a name, and pass over a server that is down or draining.
        concurrency: Calls that one method makes at once, at most.
        inputs_per_call: Most inputs of one call. Where a server takes fewer, they are split anew.
        bytes_per_call: Most bytes of texts in one call, likewise.
        security: TLS, a certificate, an API key; none by default.

    Raises:
        ValueError: The address is none, or a setting is below 1.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        concurrency: int = CALLS_AT_ONCE,
        inputs_per_call: int = CALL_INPUTS,
        bytes_per_call: int = CALL_BYTES,
        security: Security = OPEN,
    ) -> None:
        self.address = address
        self._concurrency = at_least_one("concurrency", concurrency)
        self._limits = Limits(
            inputs=at_least_one("inputs_per_call", inputs_per_call),
            message_bytes=at_least_one("bytes_per_call", bytes_per_call),
        )
        where, options = target(address)
        self._channel = open_channel(where, options, security)
        self._metadata = security.metadata
        self._inference: Any = InferenceServiceStub(self._channel)
        self._models: Any = ModelServiceStub(self._channel)

    def embed(self, texts: Sequence[str], **options: Unpack[EmbedOptions]) -> NDArray[np.float32]:
        """Computes one vector per text: an array of shape (texts, dimensions)."""
        return responses.stacked(self.embed_each(texts, **options))

    def embed_each(
        self, texts: Sequence[str], **options: Unpack[EmbedOptions]
    ) -> list[results.Embedding | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.EMBED.job(texts, options))

    def embed_tokens(
        self, texts: Sequence[str], **options: Unpack[EmbedOptions]
    ) -> list[results.TokenEmbeddings]:
        """Computes one vector per token of each text."""
        return responses.settled(self.embed_tokens_each(texts, **options))

    def embed_tokens_each(
        self, texts: Sequence[str], **options: Unpack[EmbedOptions]
    ) -> list[results.TokenEmbeddings | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.EMBED_TOKENS.job(texts, options))

    def classify(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[ClassifyOptions]
    ) -> list[results.Classification]:
        """Scores the model's labels for texts or pairs of texts."""
        return responses.settled(self.classify_each(inputs, **options))

    def classify_each(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[ClassifyOptions]
    ) -> list[results.Classification | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.CLASSIFY.job(inputs, options))

    def classify_zero_shot(
        self, texts: Sequence[str], labels: Sequence[str], **options: Unpack[ZeroShotOptions]
    ) -> list[results.Classification]:
        """Scores labels of your own, by inference between text and label."""
        return responses.settled(self.classify_zero_shot_each(texts, labels, **options))

    def classify_zero_shot_each(
        self, texts: Sequence[str], labels: Sequence[str], **options: Unpack[ZeroShotOptions]
    ) -> list[results.Classification | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.zero_shot(texts, labels, options))

    def rerank(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> list[results.Ranked]:
        """Orders documents by relevance to a query: best first, equal ones as given."""
        return responses.settled(self.rerank_each(query, documents, **options))

    def rerank_each(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> list[results.Ranked | BertdError]:
        """The same, with the errors of documents after what could be scored."""
        outcomes = self._run(calls.rerank(query, documents, options))
        return responses.in_order(outcomes, options.get("top_n") or 0)

    def tag(self, texts: Sequence[str], **options: Unpack[TagOptions]) -> list[results.Tagging]:
        """Finds entities in texts."""
        return responses.settled(self.tag_each(texts, **options))

    def tag_each(
        self, texts: Sequence[str], **options: Unpack[TagOptions]
    ) -> list[results.Tagging | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.TAG.job(texts, options))

    def answer(
        self, inputs: Sequence[tuple[str, str]], **options: Unpack[AnswerOptions]
    ) -> list[results.Answers]:
        """Answers questions, each given as (question, context), from their contexts."""
        return responses.settled(self.answer_each(inputs, **options))

    def answer_each(
        self, inputs: Sequence[tuple[str, str]], **options: Unpack[AnswerOptions]
    ) -> list[results.Answers | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.ANSWER.job(inputs, options))

    def fill_mask(
        self, texts: Sequence[str], **options: Unpack[FillMaskOptions]
    ) -> list[results.Filling]:
        """Fills the mask tokens of texts (:attr:`ModelInfo.mask_token`)."""
        return responses.settled(self.fill_mask_each(texts, **options))

    def fill_mask_each(
        self, texts: Sequence[str], **options: Unpack[FillMaskOptions]
    ) -> list[results.Filling | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.FILL_MASK.job(texts, options))

    def tokenize(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[TokenizeOptions]
    ) -> list[tuple[results.Token, ...]]:
        """Turns texts or pairs into tokens, as the model reads them; none is cut off."""
        return responses.settled(self.tokenize_each(inputs, **options))

    def tokenize_each(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[TokenizeOptions]
    ) -> list[tuple[results.Token, ...] | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.tokenize(inputs, options))

    def count_tokens(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[CallOptions]
    ) -> list[int]:
        """Counts the tokens of texts or pairs, special tokens included."""
        return responses.settled(self.count_tokens_each(inputs, **options))

    def count_tokens_each(
        self, inputs: Sequence[str | tuple[str, str]], **options: Unpack[CallOptions]
    ) -> list[int | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.COUNT_TOKENS.job(inputs, options))

    def detokenize(
        self, sequences: Sequence[Sequence[int]], **options: Unpack[TokenizeOptions]
    ) -> list[str]:
        """Writes token ids as texts."""
        return responses.settled(self.detokenize_each(sequences, **options))

    def detokenize_each(
        self, sequences: Sequence[Sequence[int]], **options: Unpack[TokenizeOptions]
    ) -> list[str | BertdError]:
        """The same, with the errors of inputs in their places."""
        return self._run(calls.detokenize(sequences, options))

    def list_models(self, *, timeout: float | None = None) -> list[results.ModelInfo]:
        """Describes every model of the server."""
        request = models_pb2.ListModelsRequest()
        return responses.models(self._call(self._models.ListModels, request, timeout))

    def get_model(self, name: str = "", *, timeout: float | None = None) -> results.ModelInfo:
        """Describes one model; the empty name means the server's default."""
        request = models_pb2.GetModelRequest(name=name)
        return responses.model(self._call(self._models.GetModel, request, timeout))

    def close(self) -> None:
        """Closes the connections; calls that still run are cancelled."""
        self._channel.close()

    def _run(self, job: Job[R]) -> list[R | BertdError]:
        rpc = getattr(self._inference, job.rpc)
        with Progress(len(job.inputs), job.field, shown=job.progress) as progress:
            work = Work(job, self._limits, progress.add)
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            flying: dict[Any, Chunk] = {}
            try:
                while flying or work.waits():
                    while work.waits() and len(flying) < self._concurrency:
                        chunk = work.take()
                        request, timeout = job.request(chunk), work.remaining()
                        if not flying and not work.waits():  # the only one needs no queue
                            ask = partial(rpc, request, timeout=timeout, metadata=self._metadata)
                            _settle(work, chunk, ask)
                        else:
                            call = rpc.future(request, timeout=timeout, metadata=self._metadata)
                            flying[call] = chunk
                            call.add_done_callback(done.put)
                    if flying:
                        call = done.get()
                        _settle(work, flying.pop(call), call.result)
            finally:
                for call in flying:
                    call.cancel()
            return work.outcomes()

    def _call(self, rpc: Any, request: Any, timeout: float | None) -> Any:
        try:
            return rpc(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _settle(work: Work[Any], chunk: Chunk, result: Callable[[], Any]) -> None:
    try:
        response = result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        work.refuse(chunk, from_rpc_error(error))
    else:
        work.answer(chunk, response)
