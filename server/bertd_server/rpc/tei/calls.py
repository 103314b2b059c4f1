"""What the calls of tei.v1 share: one text in, one answer out, alone or in a stream.

::

    request ──fit, caller──> task ──reply──> Tally ──value──> response with Metadata
                               └── RequestError: the call, or its stream, ends with its status

A stream waits where a single call is refused for lack of room: its client cannot send one of its
requests again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bertd.tei.v1 import tei_pb2 as pb
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput, Overloaded, RequestError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.enums import known_value
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.tasks.ask import CallContext, Reply
from bertd_server.tokenization.reader import Fit
from bertd_server.tokenization.truncation import CutSide

Request = TypeVar("Request")
Response = TypeVar("Response")
T = TypeVar("T")
S = TypeVar("S", bound="Service")

# Requests have one text each: so many of a stream together make good batches.
IN_WORK = 128
MODEL_KEY = "bertd-model"  # of the call's metadata; the protocol has no field for it

_SIDES: dict[int, CutSide] = {
    pb.TRUNCATION_DIRECTION_RIGHT: "right",
    pb.TRUNCATION_DIRECTION_LEFT: "left",
}
_LEAST_WAIT = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may ask for.

    Attributes:
        max_texts: of one request.
        max_answer_bytes: of an answer that grows with a stream, about.
    """

    max_texts: int
    max_answer_bytes: int


class Service:
    """Finds the model of a call."""

    def __init__(self, models: Catalogue, limits: Limits, closing: asyncio.Event) -> None:
        """Serve models by name, looked up anew for each call, until `closing` is set."""
        self._models = models
        self._closing = closing
        self._limits = limits

    def model(self, context: Context[Any, Any]) -> Model:
        """The model that a call means; see :meth:`Catalogue.find`."""
        given = dict(context.invocation_metadata() or ())
        return self._models.find(str(given.get(MODEL_KEY, "")), field=f"metadata {MODEL_KEY}")


def holding(
    method: Callable[[S, Model, Request, Context[Any, Any]], Awaitable[Response]],
) -> Callable[[S, Request, Context[Any, Any]], Awaitable[Response]]:
    """Give a method the model of its call, and hold it until the answer is there."""

    async def held(self: S, request: Request, context: Context[Any, Any]) -> Response:
        with self.model(context) as model:
            return await method(self, model, request, context)

    return held


class Tally:
    """Counts and times of an answer, from now on.

    Attributes:
        texts: that were added.
    """

    def __init__(self) -> None:
        self._begin = time.perf_counter_ns()
        self.texts = 0
        self._characters = 0
        self._tokens = 0
        self._tokenize_ns = 0
        self._queue_ns = 0
        self._compute_ns = 0

    def add(self, reply: Reply[T], characters: int) -> T:
        """Count a text, and give its value.

        Raises:
            RequestError: it has none.
        """
        if isinstance(reply.outcome, RequestError):
            raise reply.outcome
        self.texts += 1
        self._characters += characters
        self._tokens += reply.read
        if reply.trace is not None:
            self._tokenize_ns += reply.trace.tokenize_ns
            self._queue_ns += reply.trace.queue_ns
            self._compute_ns += reply.trace.compute_ns
        return reply.outcome

    def metadata(self) -> pb.Metadata:
        """Sums of the counts, means of the times; there is at least one text."""
        return pb.Metadata(
            compute_chars=self._characters,
            compute_tokens=self._tokens,
            total_time_ns=time.perf_counter_ns() - self._begin,
            tokenization_time_ns=self._tokenize_ns // self.texts,
            queue_time_ns=self._queue_ns // self.texts,
            inference_time_ns=self._compute_ns // self.texts,
        )


def check_text(text: str, field: str = "inputs") -> None:
    """Refuse an empty text. One of spaces is read: the protocol's own server does so."""
    if not text:
        raise InvalidInput(f"{field} is empty: send a text", field=field)


def fit(request: Any) -> Fit:
    """What to do with long texts."""
    side = known_value(
        "truncation_direction", request.truncation_direction, _SIDES, pb.TruncationDirection
    )
    return Fit(
        "truncate" if request.truncate else "error", side, blank=True, remedy="truncate = true"
    )


def caller(context: Context[Any, Any]) -> CallContext:
    """How long the caller waits."""
    remaining = _remaining(context)
    return CallContext.within(math.inf if remaining is None else remaining)


async def answered(
    work: Callable[[Request, Context[Any, Any]], Awaitable[Response]],
    request: Request,
    context: Context[Any, Any],
) -> Response:
    """Answer one request, or end the call with its error."""
    try:
        response = await work(request, context)
    except RequestError as error:
        await abort(context, error)
    metadata = getattr(response, "metadata", None)
    if metadata is not None:
        await context.send_initial_metadata(headers(metadata))
    return response


async def streamed(
    work: Callable[[Request, Context[Any, Any]], Awaitable[Response]],
    requests: AsyncIterator[Request],
    context: Context[Any, Any],
    closing: asyncio.Event,
) -> AsyncIterator[Response]:
    """Answer requests in order; the first that cannot be answered ends the call with its error."""
    stream = in_order(requests, lambda request: patiently(work, request, context), closing, IN_WORK)
    try:
        async with closed_after_use(stream) as responses:
            async for response in responses:
                yield response
    except RequestError as error:
        await abort(context, error)


async def patiently(
    work: Callable[[Request, Context[Any, Any]], Awaitable[Response]],
    request: Request,
    context: Context[Any, Any],
) -> Response:
    """Answer a request of a stream; where there is no room, wait for it, if the deadline allows."""
    while True:
        try:
            return await work(request, context)
        except Overloaded as error:
            wait = max(_LEAST_WAIT, error.retry_after_seconds)
            remaining = _remaining(context)
            if error.in_vain or (remaining is not None and wait >= remaining):
                raise
            await asyncio.sleep(wait)


def _remaining(context: Context[Any, Any]) -> float | None:
    """Seconds until the deadline, if there is one; the stubs say there always is."""
    return context.time_remaining()


def headers(metadata: pb.Metadata) -> tuple[tuple[str, str], ...]:
    """The same counts and times as response metadata, times in ms, as the protocol's server has."""
    total = str(metadata.total_time_ns // 1_000_000)
    return (
        ("x-compute-time", total),
        ("x-compute-characters", str(metadata.compute_chars)),
        ("x-compute-tokens", str(metadata.compute_tokens)),
        ("x-total-time", total),
        ("x-tokenization-time", str(metadata.tokenization_time_ns // 1_000_000)),
        ("x-queue-time", str(metadata.queue_time_ns // 1_000_000)),
        ("x-inference-time", str(metadata.inference_time_ns // 1_000_000)),
    )
