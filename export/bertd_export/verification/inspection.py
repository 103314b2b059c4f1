"""What a bundle says of itself, and whether its files are still those that were exported.

::

    manifest ──hashes──> files unchanged ──bertd.bundle.fit──> parts that fit each other

Needs neither onnx nor torch: the graph itself is read in :mod:`.graph_summary`.
"""

from dataclasses import dataclass
from pathlib import Path

import tokenizers
from bertd.bundle import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    BundleError,
    Manifest,
    file_problem,
    fit,
    graphs,
    read_manifest,
)
from pydantic import BaseModel

_TABLES = frozenset({"versions", "parity", "files", "source", "prompts", "format_version"})


@dataclass(frozen=True)
class Inspection:
    """A bundle's manifest and the state of its files; `misfit` is what of them does not fit."""

    folder: Path
    manifest: Manifest
    problems: dict[str, str | None]
    unlisted: tuple[str, ...]
    misfit: str | None

    @property
    def intact(self) -> bool:
        """Whether every file is there and unchanged."""
        return not any(self.problems.values())


def inspect_bundle(folder: Path) -> Inspection:
    """Read the manifest and compare every file with it.

    Raises:
        BundleError: there is no valid manifest. What is wrong with files is in the result.
    """
    manifest = read_manifest(folder)
    problems = {name: file_problem(folder, name, want) for name, want in manifest.files.items()}
    known = {MANIFEST_NAME, *manifest.files}
    unlisted = sorted(path.name for path in folder.iterdir() if path.name not in known)
    misfit = None if any(problems.values()) else misfit_of(folder, manifest)
    return Inspection(folder, manifest, problems, tuple(unlisted), misfit)


def misfit_of(folder: Path, manifest: Manifest) -> str | None:
    """What of a bundle's unchanged files does not fit its manifest; None if all does."""
    try:
        graphs.check_graph(folder, manifest)
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_NAME))
        fit.check_fit(folder, manifest, max(tokenizer.get_vocab().values(), default=-1))
    except BundleError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - tokenizers has no type of its own
        return f"{folder / TOKENIZER_NAME} holds no tokenizer ({error}): export the model again"
    return None


_NO_VECTORS = "dimensions", 0  # a manifest's of another task


def rows(found: Inspection) -> list[tuple[str, str]]:
    """Everything that the manifest says, as pairs of name and value, ready to print."""
    manifest = found.manifest
    lines = [("bundle", str(found.folder)), ("format", str(manifest.format_version))]
    lines += [
        (name.replace("_", " "), _plain(value))
        for name, value in manifest
        if name not in _TABLES and value not in (None, {}, ()) and (name, value) != _NO_VECTORS
    ]
    commit = f" at {manifest.source.revision}" if manifest.source.revision else ""
    lines.append(("source", manifest.source.name + commit))
    lines += [(f"prompt {name}", repr(text)) for name, text in manifest.prompts.items()]
    lines += [
        (
            f"parity {name}",
            (
                f"{parity.max_abs_diff:.2e} at most (tolerance {parity.tolerance:.0e}, "
                f"{parity.cases} texts; worst: {parity.worst_case})"
            ),
        )
        for name, parity in manifest.parity.items()
    ]
    lines.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.versions.items())))
    lines += [
        (f"file {name}", f"{manifest.files[name].bytes} bytes, {problem or 'intact'}")
        for name, problem in found.problems.items()
    ]
    lines += [(f"file {name}", "not in the manifest, not read") for name in found.unlisted]
    if found.misfit is not None:
        lines.append(("does not fit", found.misfit))
    return lines


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, BaseModel):
        parts = [(name.replace("_", " "), part) for name, part in value if part not in (None, ())]
        return "; ".join(f"{name}: {_plain(part)}" for name, part in parts)
    return str(value).lower() if isinstance(value, bool) else str(value)
