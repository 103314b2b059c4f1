"""bertd on Ray: models as functions of Ray Data, and behind Ray Serve.

The classes for Ray Data are here by name, and imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertd_ray.data import (
        Answerer,
        Classifier,
        Embedder,
        MaskFiller,
        Ranker,
        SparseEmbedder,
        Tagger,
        ZeroShotClassifier,
    )

__all__ = [
    "Answerer",
    "Classifier",
    "Embedder",
    "MaskFiller",
    "Ranker",
    "SparseEmbedder",
    "Tagger",
    "ZeroShotClassifier",
]


def __getattr__(name: str) -> object:
    """A name of the public interface, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("bertd_ray.data"), name)


def __dir__() -> list[str]:
    """What there is."""
    return sorted([*globals(), *__all__])
