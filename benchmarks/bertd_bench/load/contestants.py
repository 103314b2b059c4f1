"""Who takes part in `bertd bench load`, each a coroutine that serves in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertd_bench.load.spawned import ANYWHERE, Starter

OURS = "bertd"
EAGER = "PyTorch eager"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that answers `Embed`.

    Attributes:
        name: as tables show it.
        target: the coroutine that serves, for :func:`bertd_bench.load.spawned.spawn`.
        what: in a few words.
    """

    name: str
    target: str
    what: str


CONTESTANTS = (
    Contestant(OURS, f"{__name__}:serve_bertd", "`bertd serve`"),
    Contestant(
        f"{EAGER}, by length",
        f"{__name__}:serve_eager",
        "bertd's front end and scheduler around PyTorch eager, batches by length",
    ),
)


@dataclass(frozen=True, slots=True)
class ServerInputs:
    """What a server is given: folders, its threads, and settings of bertd's front end."""

    checkpoint: Path
    bundle: Path
    threads: int
    settings: Mapping[str, Any]


async def serve_eager(starter: Starter, given: ServerInputs) -> None:
    """The same server around the stock model."""
    from bertd_bench.load import eager_engine  # noqa: PLC0415 - it imports torch

    await serve_bertd(starter, given, lambda _, *rest: eager_engine.start(given.checkpoint, *rest))


async def serve_bertd(starter: Starter, given: ServerInputs, *factory: Any) -> None:
    """The server as `bertd serve` runs it, unless given what makes another engine."""
    from bertd_server.config.settings import Settings  # noqa: PLC0415 - after limits of threads
    from bertd_server.serving.server import Server  # noqa: PLC0415 - the same

    settings = Settings(
        address=ANYWHERE, http_address="off", threads=given.threads, **given.settings
    )
    server = Server(given.bundle, settings, *factory)
    await starter.serve(await server.start())
    await server.drain()
