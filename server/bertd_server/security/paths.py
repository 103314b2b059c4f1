"""Folders of a repository, by names that a caller or a file gives.

::

    ROOT/<model>/<version>/     a bundle; links may lead anywhere within ROOT, nowhere else
"""

from __future__ import annotations

import re
from pathlib import Path

from bertd.bundle import BundleError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_QUOTED = 100


def check_name(name: str) -> str:
    """A model's name, if it can be one folder.

    Raises:
        BundleError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"model name {name[:_QUOTED]!r} cannot be a folder of the repository: use letters, "
            "digits, '.', '_' and '-', at most 128, a letter or digit first"
        )
    return name


def check_version(version: str) -> str:
    """A version, if it is one.

    Raises:
        BundleError: it is not.
    """
    if not _VERSION.fullmatch(version):
        raise BundleError(
            f"version {version[:_QUOTED]!r} is none: use a whole number from 1, of at most 18 "
            "digits, without leading zeros"
        )
    return version


def version_of(folder: Path) -> str:
    """The version for which a bundle's folder is named; 1 where its name is none."""
    return folder.name if _VERSION.fullmatch(folder.name) else "1"


def safe_bundle(root: Path, name: str, version: str) -> Path:
    """The folder of a version of a model, with every link resolved.

    Load from what this returns: it is what was checked, even if a link is moved meanwhile.

    Args:
        root: of the repository.
        name: of the model, from anybody.
        version: likewise.

    Raises:
        BundleError: the names are none, there is no such folder, or it lies outside the root.
    """
    folder = root / check_name(name) / check_version(version)
    try:
        top, found = root.resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a link to itself is a RuntimeError before 3.13
        raise BundleError(
            f"{folder} is not there ({error}): put a bundle into it with "
            f"`bertd export MODEL --output {folder}`"
        ) from error
    if not found.is_relative_to(top) or found == top:
        raise BundleError(
            f"{folder} is a link that leaves the repository {root}: move the bundle into it"
        )
    if not found.is_dir():
        raise BundleError(f"{folder} is no folder: a version is the folder of a bundle")
    return found
