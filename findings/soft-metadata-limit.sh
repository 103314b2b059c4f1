#!/usr/bin/env bash
# grpcio 1.81.1: a status whose message has 2,000 letters "é", or whose trailers have 10 KiB of
# details: does the client get it?
#
# Guess: always, or never: the documented limit of metadata is 8 KiB, so it would be cut or refused.
# Seen:  by chance. Between a soft limit (8 KiB) and a hard one (16 KiB) the receiver throws dice for
#        each call, with odds that grow with the size: of the same call some show INVALID_ARGUMENT and
#        the server's words, the others RESOURCE_EXHAUSTED "received metadata size exceeds soft limit",
#        a status that many clients retry. Messages count percent-encoded: six bytes for each "é", nine
#        for each Korean syllable, so that an error that quotes 1,000 syllables is above the limit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1
"$folder/env/bin/python" - <<'PYTHON'
import asyncio
from collections import Counter

import grpc

CALLS = 200


async def fail(request, context):
    kind, size = request.decode().split()
    if kind == "details":
        context.set_trailing_metadata((("details-bin", b"x" * int(size)),))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "why")
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "é" * int(size))


async def main():
    method = grpc.unary_unary_rpc_method_handler(fail)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("Service", {"Fail": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    seen = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for asked in ("details 7000", "details 12000", "details 17000", "letters 1000", "letters 2000"):
            codes = Counter()
            for _ in range(CALLS):
                try:
                    await channel.unary_unary("/Service/Fail")(asked.encode())
                except grpc.aio.AioRpcError as error:
                    codes[error.code().name] += 1
            seen[asked] = codes
            print(asked, dict(codes))
    await server.stop(None)
    for asked in ("details 7000", "letters 1000"):
        assert seen[asked] == {"INVALID_ARGUMENT": CALLS}, seen[asked]
    for asked in ("details 12000", "letters 2000"):
        assert set(seen[asked]) == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}, seen[asked]
    assert seen["details 17000"] == {"RESOURCE_EXHAUSTED": CALLS}


asyncio.run(main())
PYTHON
