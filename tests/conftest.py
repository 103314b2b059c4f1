"""Real small things that the tests share: one exported model, one running server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from bertd_bench.checkpoints import save_random
from bertd_client import Client
from bertd_export.bundle import export_model
from bertd_server.app import Server
from bertd_server.default_model import checkpoint_folder
from bertd_server.settings import Settings

if TYPE_CHECKING:
    from servers import Servers

T = TypeVar("T")


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """all-MiniLM-L6-v2, as its registry package carries it."""
    return checkpoint_folder()


@pytest.fixture(scope="session")
def bundle_folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, exported once per run."""
    folder = tmp_path_factory.mktemp("bundles") / "minilm"
    export_model(str(checkpoint), folder, name="minilm")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two tiny layers with random weights, that reads one token per English word."""
    folder = tmp_path_factory.mktemp("tiny")
    save_random("bert", "feature-extraction", "tiny", folder / "checkpoint")
    export_model(str(folder / "checkpoint"), folder / "bundle", name="tiny")
    return folder / "bundle"


class RunningServer:
    """A server on a free port, on an event loop in a thread of its own."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server, port = self._await(self._start(folder, settings))
        self.address = f"127.0.0.1:{port}"

    async def _start(self, folder: Path, settings: Settings) -> tuple[Server, int]:
        server = Server(folder, settings)
        return server, await server.start()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def stop(self) -> None:
        """Drain, then end the loop."""
        self._await(self.server.drain())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def server(bundle_folder: Path) -> Iterator[RunningServer]:
    """A server of the real model."""
    running = RunningServer(bundle_folder, Settings(address="127.0.0.1:0", max_texts_per_call=64))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server for each task, started when it is first asked."""
    from servers import Servers  # noqa: PLC0415 - it imports this file

    made = Servers(tmp_path_factory)
    yield made
    made.stop()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the server."""
    with Client(server.address) as client:
        yield client
