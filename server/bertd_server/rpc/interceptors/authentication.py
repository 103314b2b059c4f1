"""The key of each call, before anything of it is decoded.

::

    call ──> known? ──> has the scope? ──> within its rate? ──> the service, while few are at work
               │              │                  │                              │
       UNAUTHENTICATED  PERMISSION_DENIED        └──── RESOURCE_EXHAUSTED ──────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from bertd_server.errors import RequestError
from bertd_server.rpc.interceptors.handlers import wrapped
from bertd_server.rpc.status import abort
from bertd_server.security.allowance import ALLOWANCE
from bertd_server.security.keys import KeyHolder, KeyRing
from bertd_server.security.management import caller_id
from bertd_server.security.scopes import HEALTH, scope_of

_HEADER = "authorization"


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls with a key through; health needs none."""

    def __init__(self, keys: KeyRing) -> None:
        """Take the keys."""
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Refuse the call, or let it through with its caller known."""
        method = handler_call_details.method
        if method.startswith(HEALTH):
            return await continuation(handler_call_details)
        try:
            caller = self._keys.find(_authorization(handler_call_details.invocation_metadata))
            caller.require(scope_of(method))
            caller.allowance.take(caller.entry.id)
        except RequestError as error:
            return _refusing(error)
        caller_id.set(caller.entry.id)
        handler = await continuation(handler_call_details)
        if handler is None or caller.allowance.unlimited:
            return handler
        ALLOWANCE.set(caller.allowance)
        return wrapped(
            handler,
            within=lambda _: caller.allowance.at_work(caller.entry.id),
            given=partial(_paced, caller) if handler.request_streaming else None,
        )


def _authorization(metadata: Any) -> str | None:
    """The header's value, if there is one."""
    for name, value in metadata or ():
        if name == _HEADER:
            return value if isinstance(value, str) else None
    return None


def _refusing(error: RequestError) -> Any:
    """A handler that ends the call, whatever its kind, before it reads a message."""

    async def refuse(_requests: Any, context: Any) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


async def _paced(caller: KeyHolder, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Messages of a stream as fast as the key may send them; the call has paid for the first."""
    paid = True
    async for request in requests:
        # There is nothing but time to wait for.
        while not paid and (wait := caller.allowance.wait()):  # noqa: ASYNC110
            await asyncio.sleep(wait)
        paid = False
        yield request
