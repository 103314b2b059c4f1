"""The process of a contestant that answers gRPC: ``python -m … JSON``; see `processes`.

It says its port as a line of JSON on standard output, and serves until its input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bertd_bench.contestants.worker import limit_threads

_ANYWHERE = "127.0.0.1:0"


def _factory(handling: str, checkpoint: str) -> Any:
    """What makes the engine: bertd's own, or eager with this handling of batches."""
    if not handling:
        from bertd_server.models.startup import start as own  # noqa: PLC0415 - only now

        return own
    from bertd_bench.load import eager_engine  # noqa: PLC0415 - it imports torch

    make = partial(eager_engine.start, Path(checkpoint), handling)
    return lambda _, manifest, options, starting: make(manifest, options, starting)


async def _serve(told: dict[str, Any]) -> None:
    from bertd_server.config.settings import Settings  # noqa: PLC0415 - the same
    from bertd_server.process.app import settle  # noqa: PLC0415 - after the limits of threads
    from bertd_server.serving.server import Server  # noqa: PLC0415 - the same

    server = None
    if told["kind"] == "plain":
        from bertd_bench.load import plain_server  # noqa: PLC0415 - it imports torch

        port = await plain_server.serve(
            Path(told["checkpoint"]), Path(told["scratch"]), told["threads"], _ANYWHERE
        )
    else:
        settings = Settings(
            address=_ANYWHERE, http_address="off", threads=told["threads"], **told["settings"]
        )
        factory = _factory(told["handling"], told["checkpoint"])
        server = Server(Path(told["bundle"]), settings, factory)
        port = await server.start()
    settle()
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    if server is not None:
        await server.drain()


def main() -> None:
    """What the process does."""
    told = json.loads(sys.argv[1])
    limit_threads(told["threads"])
    from bertd_server.process import runtime  # noqa: PLC0415 - after the limits of threads
    from bertd_server.system import logs  # noqa: PLC0415 - after the limits of threads

    logs.configure("console", "warning")
    runtime.run(_serve(told))


if __name__ == "__main__":
    main()
