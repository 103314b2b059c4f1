"""Real small things that the tests share: one exported model, one running server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import structlog
import torch
from bertd.bundle import Task
from bertd_bench.contestants.checkpoints import save_random
from bertd_client import Client
from bertd_export.bundle import export_model
from bertd_server.config.settings import Settings
from bertd_server.models.default_model import checkpoint_folder
from helpers.once import once
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from helpers.running import LABELS, RunningServer, quick_settings
from helpers.tiny import save_tiny
from helpers.torchlib import read_once

if TYPE_CHECKING:
    from helpers.servers import Servers

T = TypeVar("T")

# Two workers share two cores: PyTorch's threads would wait for each other, spinning.
torch.set_num_threads(1)

# A background job of a shell ignores SIGINT, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two servers at once cannot both have the default address; a test that wants HTTP says where.
os.environ.setdefault("BERTD_HTTP_ADDRESS", "off")
# On a machine that others keep busy nothing may be refused for being slow, nor starve behind them;
# a test of such a limit sets it.
os.environ.setdefault("BERTD_MAX_QUEUE_SECONDS", str(PATIENCE))
os.environ.setdefault("BERTD_MAX_REQUEST_SECONDS", str(PATIENCE))
os.environ.setdefault("BERTD_LANE_NICENESS", "0")


@pytest.fixture(scope="session", autouse=True)
def torchlib() -> Iterator[None]:
    """Exports of a run share what PyTorch reads for each."""
    with pytest.MonkeyPatch.context() as patch:
        read_once(patch)
        yield


@pytest.fixture
def unconfigured_structlog() -> Iterator[None]:
    """As in a host that has configured none: lines go to the standard library's loggers."""
    kept = structlog.get_config(), structlog.is_configured()
    structlog.reset_defaults()
    try:
        yield
    finally:
        structlog.reset_defaults()
        if kept[1]:
            structlog.configure(**kept[0])


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """all-MiniLM-L6-v2, as its registry package carries it."""
    return checkpoint_folder()


@pytest.fixture(scope="session")
def bundle_folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, exported once per run."""

    def make(folder: Path) -> None:
        export_model(str(checkpoint), folder / "minilm", name="minilm")

    return once(tmp_path_factory, "bundles", make) / "minilm"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two tiny layers with random weights, that reads one token per English word."""
    return _random_bundle(tmp_path_factory, "tiny")


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the same shape with other weights."""
    return _random_bundle(tmp_path_factory, "other", seed=1)


def _random_bundle(factory: pytest.TempPathFactory, name: str, **changes: Any) -> Path:
    def make(folder: Path) -> None:
        save_random("bert", "feature-extraction", "tiny", folder / "checkpoint", **changes)
        export_model(str(folder / "checkpoint"), folder / "bundle", name="tiny")

    return once(factory, name, make) / "bundle"


@pytest.fixture(scope="session")
def card_file() -> Path:
    """The committed card of a machine."""
    return ROOT / "benchmarks/results/hardware.json"


@pytest.fixture(scope="session")
def server(bundle_folder: Path) -> Iterator[RunningServer]:
    """A server of the real model."""
    running = RunningServer(bundle_folder, Settings(address="127.0.0.1:0", max_texts_per_call=64))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server for each task, started when it is first asked."""
    from helpers.servers import Servers  # noqa: PLC0415 - it imports this file

    made = Servers(tmp_path_factory)
    yield made
    made.stop()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the server."""
    with Client(server.address) as client:
        yield client


@pytest.fixture(scope="session")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Task], Any]]:
    """A server for each task that is asked for, with Triton's client."""
    from helpers.v2_served import Served  # noqa: PLC0415 - it needs this module, and few tests need it

    running: dict[Task, Any] = {}

    def start(task: Task) -> Any:
        if task not in running:
            running[task] = Served(task, tmp_path_factory)
        return running[task]

    yield start
    for served in running.values():
        served.stop()


@pytest.fixture(scope="session")
def tei(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """A server of each kind of model that tei.v1 knows, started when it is first asked."""
    from helpers.tei_served import Served  # noqa: PLC0415 - it needs this module, and few tests need it

    with ExitStack() as running:

        @cache
        def started(kind: str) -> Any:
            served = Served(kind, tmp_path_factory)
            running.callback(served.stop)
            return served

        yield started


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of tei.v1, generated from the contract."""
    from helpers.fresh_tei import FreshClient  # noqa: PLC0415 - few tests need it

    client = FreshClient(tmp_path_factory.mktemp("fresh"))
    yield client
    client.close()


@pytest.fixture(scope="session")
def task_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    """The bundle of a tiny random BERT for each task; one that is for inference too."""

    @cache
    def made(task: Task) -> Path:
        labels = LABELS.get("text-classification" if task.startswith("zero") else task)
        changes: dict[str, Any] = {"num_labels": 1} if task == "text-ranking" else {}
        if labels:
            changes["id2label"] = dict(enumerate(labels))

        def make(folder: Path) -> None:
            save_tiny(folder / "source", "bert", task, **changes)
            export_model(str(folder / "source"), folder / "bundle", name=task, task=task)

        return once(tmp_path_factory, f"task-{task}", make) / "bundle"

    return made


@pytest.fixture(scope="session")
def task_server(
    task_bundle: Callable[[Task], Path],
) -> Iterator[Callable[[Task], RunningServer]]:
    """A server of each of those bundles."""
    with ExitStack() as running:

        @cache
        def started(task: Task) -> RunningServer:
            server = RunningServer(task_bundle(task), quick_settings())
            running.callback(server.stop)
            return server

        yield started
