"""What a call that is refused leaves behind: nothing in memory, and nothing in gRPC's own log."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import grpc
import pytest
from bertd_server.errors import InvalidInput
from bertd_server.rpc.interceptors.handlers import wrapped
from bertd_server.rpc.status import abort
from helpers.patience import PATIENCE


class Large:
    """What a call has read."""


@pytest.mark.parametrize("raises", [True, False])
async def test_a_refused_call_leaves_nothing(
    caplog: pytest.LogCaptureFixture, *, raises: bool
) -> None:
    """Not even until a collection; and the error is the one that gRPC expects."""
    left: list[weakref.ref[Large]] = []
    gone = asyncio.Semaphore(0)

    async def refuse(_request: bytes, context: Any) -> bytes:
        made = Large()
        left.append(weakref.ref(made, lambda _: gone.release()))
        if raises:
            raise InvalidInput("too large")
        return await abort(context, InvalidInput("too large"))

    handler = wrapped(grpc.unary_unary_rpc_method_handler(refuse))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Test", {"Refuse": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask: Any = channel.unary_unary("/test.Test/Refuse")
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError, match="too large"):
                    await ask(b"")
        assert not caplog.records  # they would have the frames too
        for _ in range(3):
            await asyncio.wait_for(gone.acquire(), PATIENCE)
    finally:
        gc.enable()
        await server.stop(None)
