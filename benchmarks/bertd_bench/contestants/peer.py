"""What a peer is: a name, what it needs, and a function from texts to arrays.

::

    Setting (checkpoint, task, threads, folders) ──build──> AnswerTexts: texts -> one array a text
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

EMBED = "feature-extraction"
CLASSIFY = "text-classification"
TAG = "token-classification"
TASKS = (EMBED, CLASSIFY, TAG)

# One array for each text, in their order: a vector, logits, or logits of each of its tokens.
TextArrays = Sequence[Any] | NDArray[Any]
AnswerTexts = Callable[[Sequence[str]], TextArrays]


class PeerUnavailable(Exception):
    """This peer cannot do this here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer is asked to be.

    Attributes:
        checkpoint: folder of the model, as transformers writes it.
        task: one of `TASKS`; embeddings are mean-pooled and normalised.
        threads: that it may use.
        scratch: folder for exports, shared by all peers of one model; made one after the other.
        bundles: folders of bertd's bundles by precision.
        calibration: texts, for what wants to see some before it quantises.
    """

    checkpoint: str
    task: str
    threads: int
    scratch: str
    bundles: dict[str, str] = field(default_factory=dict)
    calibration: tuple[str, ...] = ()

    def folder(self, name: str) -> Path:
        """A folder below `scratch`, made if it is not there."""
        path = Path(self.scratch) / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def as_json(self) -> dict[str, Any]:
        """For the worker's command."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Peer:
    """One contestant.

    Attributes:
        name: as tables show it.
        precision: fp32, bf16 or int8.
        needs: modules without which it cannot be.
        build: makes it ready, raising `PeerUnavailable` where it cannot.
        tasks: that it can do.
        own: whether it is bertd.
        handles: whether other ways to hand it a mixed batch are tried than all at once.
    """

    name: str
    precision: str
    needs: tuple[str, ...]
    build: Callable[[Setting], AnswerTexts]
    tasks: tuple[str, ...] = (EMBED,)
    own: bool = False
    handles: bool = True

    def missing(self) -> list[str]:
        """Modules of `needs` that this interpreter lacks."""
        return [name for name in self.needs if not _found(name)]


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent
        return False
