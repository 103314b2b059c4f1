#!/usr/bin/env bash
# grpcio 1.81.1 (asyncio): when is what a call has in memory free again, if it ends with
# `context.abort`, as every refusal does?
#
# Guess: when the call has ended, as with one that is answered; CPython counts references.
# Seen:  not until the garbage collector's next full run, which a server that has frozen its objects,
#        or makes few new ones, may not see for hours. The call's state keeps the exception that abort
#        has raised, its traceback keeps every frame of the handler, and a frame keeps the context and
#        with it the state. Of a refused call of 64 long texts that was 650 MB. An exception that is
#        raised in the frames' place, or a handler that drops its locals first, leaves nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1
"$folder/env/bin/python" - <<'PYTHON'
import asyncio
import gc
import weakref

import grpc


class Large:
    """What a handler has made of a request."""


left = []


async def refuse(request, context):
    made = Large()
    left.append(weakref.ref(made))
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too large")


async def answer(request, context):
    made = Large()
    left.append(weakref.ref(made))
    return request


async def alive(handler):
    """How many of ten calls' objects are there after the calls, and after a collection."""
    left.clear()
    server = grpc.aio.server()
    methods = {"Call": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.A", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.disable()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(10):
            try:
                await channel.unary_unary("/a.A/Call")(b"x")
            except grpc.aio.AioRpcError:
                pass
        await asyncio.sleep(0.5)
        found = [sum(one() is not None for one in left)]
        gc.collect()
        found.append(sum(one() is not None for one in left))
    await server.stop(None)
    return found


async def main():
    answered, refused = await alive(answer), await alive(refuse)
    print("answered:", answered, "refused:", refused)
    assert answered == [0, 0], answered
    assert refused[0] >= 9, refused
    assert refused[1] <= 1, refused  # the last one stays even then


asyncio.run(main())
PYTHON
