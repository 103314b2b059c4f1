"""A server on an event loop in a thread, and settings with which it starts at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from bertd_server.config.settings import Settings
from bertd_server.serving.server import Server
from helpers.patience import PATIENCE

T = TypeVar("T")

LABELS = {
    "text-classification": ("contradiction", "neutral", "entailment"),
    "token-classification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}


def quick_settings(**changes: Any) -> Settings:
    """Of a server on a free port that starts at once."""
    quick = {"warmup_seconds": 0, "calibration_seconds": 0.05, "lanes": 1, "threads": 1}
    return Settings(**{"address": "127.0.0.1:0", **quick, **changes})


class RunningServer:
    """A server on a free port, on an event loop in a thread of its own."""

    def __init__(self, folder: Path | None, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self.server, port = self.on_loop(self._start(folder, settings))
        except BaseException:
            self._end()
            raise
        self.address = f"127.0.0.1:{port}"

    async def _start(self, folder: Path | None, settings: Settings) -> tuple[Server, int]:
        server = Server(folder, settings)
        return server, await server.start()

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns, on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Drain, then end the loop."""
        self.on_loop(self.server.drain())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
