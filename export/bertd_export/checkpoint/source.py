"""Where a checkpoint lies: a folder or a commit on the hub. Its files stay inside its folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from bertd_export.errors import ExportError

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]
_PICKLE_PATTERNS = ["*.bin"]


class Located(NamedTuple):
    """A checkpoint's folder, its name, and its commit where it came from the hub."""

    folder: Path
    name: str
    revision: str | None


def locate(model: str, *, revision: str | None = None, allow_pickle: bool = False) -> Located:
    """Find a checkpoint, fetching it from the hub where it is not a folder.

    Args:
        model: a folder, or a hub id.
        revision: branch, tag or commit on the hub; by default its main branch.
        allow_pickle: fetch pickled weights too.

    Raises:
        ExportError: there is no such checkpoint, or a folder is asked for at a revision.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise ExportError(f"{model} is a folder: --revision is for a hub id")
        return Located(folder, folder.resolve().name, None)
    if folder.exists():
        raise ExportError(f"{model} is a file: give the folder of the checkpoint")
    if folder.is_absolute() or model.startswith("."):
        raise ExportError(f"{model} is not a folder")
    patterns = _PATTERNS + _PICKLE_PATTERNS * allow_pickle
    try:
        found = Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ExportError(f"{model} is neither a folder nor a hub id: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ExportError(
            f"{model} is not a folder here and cannot be fetched from the hub: {error}"
        ) from error
    return Located(found, model, found.name if found.parent.name == "snapshots" else None)


def read_json(path: Path) -> Any:
    """Parse a file of the checkpoint.

    Raises:
        ExportError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Parse a file of the checkpoint that holds one JSON object.

    Raises:
        ExportError: it is missing, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ExportError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def inside(folder: Path, part: object) -> Path:
    """The path that a file of the checkpoint names, which must not leave the checkpoint's folder.

    Raises:
        ExportError: it is absolute, climbs out, or is a link that leads out.
    """
    if not isinstance(part, str):
        raise ExportError(f"{folder} names {part!r} as a path; it must be a string")
    path = folder / part
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ExportError(f"{folder} names the path {part!r}, which leaves its folder: refused")
    return path
