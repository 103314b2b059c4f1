"""Infinity's own HTTP server in a process of its own, and of its own interpreter.

As `infinity_emb v2` starts it, with the same application, uvicorn, parser and event loop; here it
says its port as a line of JSON, and ends when its input closes. It imports neither bertd nor
pydantic's models of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

from bertd_bench.contestants.worker import limit_threads

NEEDS = (
    "infinity_emb",
    "torch",
    "fastapi",
    "uvicorn",
    "httptools",
    "uvloop",
    "prometheus_fastapi_instrumentator",
)
MODEL = "model"


async def _serve(told: dict[str, Any]) -> None:
    import torch  # noqa: PLC0415 - after the limits of threads
    import uvicorn  # noqa: PLC0415 - the same
    from infinity_emb import EngineArgs  # noqa: PLC0415 - the same
    from infinity_emb.infinity_server import create_server  # noqa: PLC0415 - the same

    torch.set_num_threads(told["threads"])
    arguments = EngineArgs(
        model_name_or_path=told["checkpoint"],
        served_model_name=MODEL,
        engine="torch",
        device="cpu",
        dtype="float32",
        bettertransformer=False,
        lengths_via_tokenize=False,
    )
    app = create_server(engine_args_list=[arguments])
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", http="httptools")
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve([listener]))
    while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn has no event
        await asyncio.sleep(0.05)
    if not running.done():
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.should_exit = True
    await running


def main() -> None:
    """What the process does."""
    told = json.loads(sys.argv[1])
    os.environ["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"
    os.environ["DO_NOT_TRACK"] = "1"
    limit_threads(told["threads"])
    import uvloop  # noqa: PLC0415 - where Infinity is, and nowhere else

    uvloop.run(_serve(told))


if __name__ == "__main__":
    main()
