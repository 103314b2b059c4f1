"""What a repository shows to those who manage it: what is there, and how to change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bertd_server.errors import Unsupported
from bertd_server.models.catalogue import Catalogue

ModelState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version in the index of what is there."""

    name: str
    version: str
    state: ModelState
    reason: str = ""


class Repository(Protocol):
    """What can change which models are served."""

    def index(self) -> list[IndexEntry]:
        """All that is there, served or not, by name and version."""

    async def load(self, name: str) -> None:
        """Serve a model as it is on disk now.

        Raises:
            RequestError: it cannot be, or models are not loaded on request here.
        """

    async def unload(self, name: str) -> None:
        """Serve no version of a model any more.

        Raises:
            RequestError: none is served, or models are not unloaded on request here.
        """


class SingleBundle:
    """The one bundle that a server was started with."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def index(self) -> list[IndexEntry]:
        """It alone."""
        return [IndexEntry(one.name, one.version, "READY") for one in self._catalogue.models()]

    async def load(self, name: str) -> None:
        """Do nothing for the one that is served; refuse others."""
        self._catalogue.find(name, field="model_name")

    async def unload(self, name: str) -> None:
        """Refuse."""
        self._catalogue.find(name, field="model_name")
        raise Unsupported(
            "models cannot be unloaded: the server serves the bundle that it was started with "
            "until it stops; start it with --repository and --model-control explicit"
        )
