"""What the calls of tei.v1 share: one text in, one answer out, alone or in a stream.

::

    request ──fit, caller──> task ──reply──> Tally ──value──> response with Metadata
                               └── RequestError: the call, or its stream, ends with its status

A stream waits where a single call is refused for lack of room: its client cannot send one of its
requests again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from grpc.aio import ServicerContext as Context

from bertd_server.errors import Overloaded, RequestError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use, in_order
from bertd_server.rpc.tei.metadata import headers
from bertd_server.rpc.tei.requests import seconds_left

Request = TypeVar("Request")
Response = TypeVar("Response")
S = TypeVar("S", bound="TeiService")

# Requests have one text each: so many of a stream together make good batches.
IN_WORK = 128
# Of those that found no room so many try again, in order. A try reads the text, which may be long:
# all of several streams at once would hold the event loop for seconds.
WAITING = 4
MODEL_KEY = "bertd-model"  # of the call's metadata; the protocol has no field for it

_LEAST_WAIT = 0.01  # seconds


class TeiService:
    """Finds the model of a call."""

    def __init__(self, models: Catalogue, limits: CallLimits, closing: asyncio.Event) -> None:
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
    turns = asyncio.Semaphore(WAITING)
    stream = in_order(
        requests, lambda request: patiently(work, request, context, turns), closing, IN_WORK
    )
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
    turns: asyncio.Semaphore,
) -> Response:
    """Answer a request of a stream; where there is no room, wait for it, if the deadline allows.

    Args:
        work: answers one.
        request: to answer.
        context: of the stream.
        turns: of its requests that found no room: who waits for a turn tries nothing.
    """
    outcome = await _tried(work, request, context)
    if not isinstance(outcome, Overloaded):
        return outcome
    async with turns:
        while isinstance(outcome, Overloaded):
            wait = max(_LEAST_WAIT, outcome.retry_after_seconds)
            remaining = seconds_left(context)
            if outcome.in_vain or (remaining is not None and wait >= remaining):
                break
            await asyncio.sleep(wait)
            outcome = await _tried(work, request, context)
    if isinstance(outcome, Overloaded):
        try:
            raise outcome
        finally:
            del outcome  # which keeps this frame now
    return outcome


async def _tried(
    work: Callable[[Request, Context[Any, Any]], Awaitable[Response]],
    request: Request,
    context: Context[Any, Any],
) -> Response | Overloaded:
    """Answer a request, or return why there is no room for it.

    The error forgets the frames that it passed through, since who keeps it is one of them: they
    would keep each other, and what was read of the text, until all garbage is collected.
    """
    try:
        return await work(request, context)
    except Overloaded as error:
        return error.with_traceback(None)
