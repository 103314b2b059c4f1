"""A checkpoint that is to be served: exported once, into the cache, by a process of its own.

::

    folder of a checkpoint, hub id ──find──> CheckpointModel ──begin──> Export ──finish──> bundle
                                             (its place in the cache)     └── None: it is there

Torch never enters the server: the export is `bertd export`, which ends with this process. Servers
that share a cache export one model at a time, and find what another has made. What an export leaves
where it is killed goes with the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bertd
from bertd import bundle
from bertd.bundle import scratch

from bertd_server.errors import MisusedError
from bertd_server.system import cache_folder
from bertd_server.system.logs import get_logger
from bertd_server.system.tied import tied

log = get_logger("bertd")

_CLEANING_SECONDS = 2.0  # for an export to remove what it has written
_NEEDED = ("torch", "transformers", "onnx")  # of the extra [export]
_SAYS_CHECKPOINT = ("config.json", "modules.json", "adapter_config.json")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(f"{_PART}(/{_PART})?")
_KEY_CHARACTERS = 16
_TRAINING = "checkpoint-"  # folders that a trainer leaves beside the model; no export reads them


class ExportingError(RuntimeError):
    """There is no bundle of a model, and none can be made."""


@dataclass(frozen=True, slots=True)
class CheckpointModel:
    """A checkpoint and how it is exported."""

    source: str
    """Folder, or hub id."""
    name: str
    """By which it is served, and its bundle is called in the cache."""
    options: tuple[str, ...] = ()
    """More arguments of `bertd export`."""
    key: str = ""
    """Tells bundles of one name apart: of the checkpoint's content, and the options."""

    def folder(self, cache: Path | None = None) -> Path:
        """Where its bundle is kept, in the user's cache folder or another."""
        version = f"bertd-{bertd.__version__}-format-{bundle.FORMAT_VERSION}"
        bundles = (cache or cache_folder.user_cache_folder()) / "bundles" / version
        return bundles / "-".join(filter(None, (self.name, self.key)))


def find(model: str, options: tuple[str, ...] = ()) -> CheckpointModel | None:
    """What `bertd serve MODEL` names, if that is no bundle.

    Args:
        model: a folder, or a hub id.
        options: more arguments of `bertd export`.

    Returns:
        None where it is a folder of something else, which loading refuses unless it is a bundle.

    Raises:
        MisusedError: there is no such folder, and no hub has such a name.
    """
    folder = Path(model)
    try:
        if folder.is_dir():
            if (folder / bundle.MANIFEST_NAME).exists() or not any(
                (folder / name).exists() for name in _SAYS_CHECKPOINT
            ):
                return None
            return CheckpointModel(
                model,
                bundle.safe_name(folder.resolve().name),
                options,
                key_of([*_contents(folder), *options]),
            )
        there = folder.exists()
    except OSError as error:
        raise MisusedError(f"{model} cannot be read: {error.strerror}") from error
    if there:
        raise MisusedError(
            f"{model} is a file: give the folder of a bundle or of a checkpoint, or a hub id"
        )
    if not _HUB_ID.fullmatch(model):
        raise MisusedError(
            f"there is no folder {model}, and it is no hub id such as organisation/model: give a "
            "bundle or a checkpoint"
        )
    hub = os.environ.get("HF_ENDPOINT", "")
    return CheckpointModel(model, bundle.safe_name(model), options, key_of([model, hub, *options]))


def check_exporter(model: str) -> None:
    """Refuse a checkpoint where nothing is installed that could export it.

    Raises:
        MisusedError: that is so.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MisusedError(
            f"{model} is a checkpoint, and to export it needs the extra [export] "
            f"({', '.join(missing)} not installed): pip install 'bertd[export]', or run "
            "`bertd export` elsewhere and serve the bundle"
        )


def key_of(parts: Iterable[str]) -> str:
    """What tells one bundle from others of its name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_CHARACTERS]


def _contents(folder: Path) -> Iterator[str]:
    """Name and SHA-256 of each file that an export could read.

    Raises:
        OSError: one cannot be read.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", _TRAINING)))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith(".") or not path.is_file():
                continue
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield f"{path.relative_to(folder)} {digest}"


class Export:
    """The export of a model, until its bundle is there."""

    def __init__(self, model: CheckpointModel, folder: Path) -> None:
        """Make ready.

        Args:
            model: what to export.
            folder: where the bundle will be; its parent is there.
        """
        self._model = model
        self._folder = folder
        self._ended = False
        self._leftovers = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def finish(self) -> None:
        """Export, or wait until another process has; on the main thread, or on one that lasts.

        Raises:
            ExportingError: there is no bundle.
        """
        try:
            with scratch.one_at_a_time(self._folder.parent.parent, self._waits):
                if is_whole(self._folder) or self._ended:
                    return
                code = self._run()
        except OSError as error:
            raise unwritable(self._model, self._folder, error) from error
        if code and not is_whole(self._folder):
            raise ExportingError(
                f"{self._model.source} could not be exported (exit code {code} of bertd export)"
            )

    def _waits(self) -> None:
        log.info("another process exports into this cache", waiting_for=str(self._folder.parent))

    def _run(self) -> int:
        """The exit code of the export.

        Raises:
            OSError: the folder cannot be written.
        """
        command = ["export", self._model.source, "--output", str(self._folder)]
        command += ["--name", self._model.name, *self._model.options]
        if self._folder.exists():  # half deleted, or written by another version
            command.append("--force")
        temporary = self._leftovers.enter_context(
            scratch.made(self._folder.parent, _scratch(self._folder))
        )
        log.info("exporting once", model=self._model.source, into=str(self._folder))
        self._process = subprocess.Popen(  # noqa: S603 - our own command with our own paths
            tied([sys.executable, "-m", "bertd_client.cli", *command]),
            stdin=subprocess.DEVNULL,
            stdout=2,  # a server says nothing on its standard output
            env={**os.environ, "TMPDIR": str(temporary)},
            process_group=0,  # a terminal's Ctrl-C reaches it through us alone
        )
        try:
            return self._process.wait()
        except BaseException:  # a signal, where this is the main thread
            self.end()
            raise
        finally:
            if not self._ended:  # else end() removes them, before the process ends
                self._leftovers.close()

    def end(self) -> None:
        """End it, and remove what it has written so far."""
        self._ended = True
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_CLEANING_SECONDS)
        except subprocess.TimeoutExpired:  # deep in a library that looks at no signals
            self._process.kill()
            self._process.wait()
        self._leftovers.close()
        _sweep(self._folder)


def begin(model: CheckpointModel, cache: Path | None = None) -> Export | None:
    """Make an export ready, if the bundle is not there in full; remove what others have left.

    Args:
        model: what to export.
        cache: folder to keep it in; None for the user's.

    Returns:
        the export, to be finished; None where there is nothing to do.

    Raises:
        MisusedError: nothing is installed that could export it.
        ExportingError: the folder cannot be written.
    """
    folder = model.folder(cache)
    _sweep(folder)
    if is_whole(folder):
        return None
    check_exporter(model.source)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(model, folder, error) from error
    return Export(model, folder)


def unwritable(model: CheckpointModel, folder: Path, error: OSError) -> ExportingError:
    """What is said of a cache in which no bundle can be kept."""
    return ExportingError(
        f"the bundle of {model.source} cannot be kept in {folder.parent}: "
        f"{error.strerror or error}; choose another folder with --cache-folder"
    )


def is_whole(folder: Path) -> bool:
    """Whether all files of the bundle are there in full; the loading server checks their hashes."""
    try:
        files = bundle.read_manifest(folder).files
        return all((folder / name).stat().st_size == record.bytes for name, record in files.items())
    except (bundle.BundleError, OSError):
        return False


def _scratch(folder: Path) -> str:
    """How the names of the export's own folders begin, and of ours for it."""
    return f".{folder.name}."


def _sweep(folder: Path) -> None:
    """Remove what exports that were killed have left beside the bundle's folder."""
    scratch.swept(folder.parent, _scratch(folder))
    if is_whole(folder):
        scratch.swept(folder.parent, _scratch(folder), r"\.old")
