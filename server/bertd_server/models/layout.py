"""The folder of a repository, read: models, their versions, and which of them are to be served.

::

    ROOT/<model>/model.toml          settings of the model, if it has any of its own
    ROOT/<model>/<version>/          a bundle, as `bertd export` writes it

Nothing is loaded here, and nothing here fails for all because one model is not in order.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from bertd.bundle import MANIFEST_NAME, BundleError, manifest_bytes
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bertd_server.security.paths import check_name, check_version, safe_bundle
from bertd_server.system.setting_types import parse_bytes

SETTINGS_NAME = "model.toml"


_MOST_BYTES = 1 << 20  # of model.toml

Files = tuple[tuple[str, int, int], ...]
"""Name, bytes and time of change of each file of a folder, by name."""


class Latest(BaseModel):
    """The newest so many versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latest: int = Field(ge=1)


Number = Annotated[int, Field(ge=1)]
VersionPolicy = Literal["all"] | Latest | list[Number]


class ModelSettings(BaseModel):
    """What `model.toml` may say; what it does not say is the server's."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    versions: VersionPolicy = Field(
        Latest(latest=1),
        description='which are served: `{ latest = 2 }`, `"all"` or a list such as `[1, 3]`',
    )
    aliases: dict[str, Number | Literal["latest"]] = Field(
        default_factory=dict,
        description='other names of the model, each with the version it means, or `"latest"`',
    )
    share: float = Field(
        1.0,
        ge=0.001,
        le=1_000,
        description="of the lanes, beside the shares of other models that have work",
    )
    max_batch_tokens: int | None = Field(None, ge=1, description="as the server's setting")
    max_batch_sequences: int | None = Field(None, ge=1, description="as the server's setting")
    max_queue_tokens: int | None = Field(None, ge=1, description="as the server's setting")
    max_queue_seconds: float | None = Field(None, ge=0, description="as the server's setting")
    max_queue_delay: float | None = Field(None, ge=0, description="as the server's setting")
    max_passed_over: int | None = Field(None, ge=0, description="as the server's setting")
    cache_bytes: Annotated[int, BeforeValidator(parse_bytes)] | None = Field(
        None, ge=0, description="as the server's setting"
    )

    @property
    def own(self) -> dict[str, Any]:
        """Settings of the server that the model has its own values of."""
        return self.model_dump(exclude={"versions", "aliases", "share"}, exclude_none=True)


@dataclass(frozen=True, slots=True)
class Version:
    """A bundle of a repository.

    Attributes:
        number: its folder's name.
        folder: with every link resolved.
        mark: differs once the bundle, or a setting with which it runs, does.
        files: differs once any file does, of a bundle that is still being copied for example.
    """

    number: int
    folder: Path
    mark: str
    files: Files


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of a repository, as its folder is now.

    Attributes:
        name: the folder's.
        settings: its own.
        versions: those that have a manifest.
        problems: why a version, by its folder's name, cannot be one; under "" of the model itself.
    """

    name: str
    settings: ModelSettings = field(default_factory=ModelSettings)
    versions: dict[int, Version] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[int]:
        """Versions that are to be served, the newest first; none that is not there."""
        return wanted(self.settings.versions, self.versions)


def wanted(policy: VersionPolicy, there: Iterable[int]) -> list[int]:
    """The versions that a policy chooses of those that are there, the newest first."""
    newest = sorted(there, reverse=True)
    if policy == "all":
        return newest
    if isinstance(policy, Latest):
        return newest[: policy.latest]
    return [number for number in newest if number in policy]


def scan(root: Path) -> dict[str, FoundModel]:
    """All models of a repository, by name.

    Folders that cannot be one are left out: see :func:`strangers`.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    for name, problem in _folders(root):
        if not problem:
            found[name] = look(root, name)
    return found


def strangers(root: Path) -> dict[str, str]:
    """Folders of a repository that cannot be models, by name, and why.

    Raises:
        OSError: the folder cannot be read.
    """
    return {name: problem for name, problem in _folders(root) if problem}


def _folders(root: Path) -> Iterator[tuple[str, str]]:
    """Names of a repository's folders, and why each cannot be a model; empty where it can."""
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            yield check_name(folder.name), ""
        except BundleError as error:
            yield folder.name, str(error)


def look(root: Path, name: str) -> FoundModel:
    """One model of a repository.

    Raises:
        BundleError: the name cannot be that of a model.
    """
    model = FoundModel(check_name(name), *_settings(root, name))
    kept = model.settings.model_dump_json(exclude={"versions", "aliases"})
    try:
        folders = sorted(one for one in (root / name).iterdir() if one.name.isdecimal())
    except OSError as error:
        model.problems[""] = f"cannot be read: {error}"
        return model
    for folder in folders:
        try:
            safe = safe_bundle(root, name, check_version(folder.name))
            manifest, files = manifest_bytes(safe), _files(safe)
        except FileNotFoundError:
            model.problems[folder.name] = f"has no {MANIFEST_NAME}: it is no bundle, or not yet"
        except (BundleError, OSError) as error:
            model.problems[folder.name] = str(error)
        else:
            mark = hashlib.sha256(manifest + kept.encode()).hexdigest()
            model.versions[int(folder.name)] = Version(int(folder.name), safe, mark, files)
    if not folders:
        model.problems[""] = (
            f"has no version: export into a numbered folder, such as {root / name / '1'}"
        )
    return model


def _files(folder: Path) -> Files:
    """What a bundle's folder holds, at a glance.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def _settings(root: Path, name: str) -> tuple[ModelSettings, dict[int, Version], dict[str, str]]:
    """A model's own settings, and what is wrong with them."""
    path = root / name / SETTINGS_NAME
    try:
        values = tomllib.loads(_text(root, path))
        return ModelSettings.model_validate(values), {}, {}
    except FileNotFoundError:
        return ModelSettings(), {}, {}
    except ValidationError as error:
        words = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
    except RecursionError:
        words = "it is nested too deep: its values are numbers, texts, lists and one table"
    except (OSError, ValueError) as error:
        words = str(error)
    return ModelSettings(), {}, {"": f"{SETTINGS_NAME}: {words}"}


def _text(root: Path, path: Path) -> str:
    """A small file below the root.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no such file, or lies elsewhere.
    """
    if not path.resolve(strict=True).is_relative_to(root.resolve(strict=True)):
        raise ValueError(f"is a link that leaves the repository {root}: copy the file into it")
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"is no file of at most {_MOST_BYTES} bytes")
    return path.read_text("utf-8")
