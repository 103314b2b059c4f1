"""The graph with its weights prepacked in a file, so that sessions hold them once.

::

    model.onnx ──write──> prepacked/KEY/ ──map──> narrow session   runs on the thread that calls it
                          graph, weights, ├──> wide session     runs on all threads
                          record          └──> page cache: one copy, whoever maps it

A session rearranges the weights of matrix products for the CPU at hand ("prepacks" them) and
keeps that copy for itself, so that two sessions take twice the memory. Written to a file once and
mapped by both, the copy is shared. The file belongs to the CPU, the ONNX Runtime and the native
kernels that made it. Servers that start at once may all write it; the first to finish puts it in
place for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
from bertd import bundle
from bertd.bundle import scratch
from bertd.bundle.kernels import NativeKernels
from pydantic import BaseModel, ValidationError

from bertd_server.engine import providers
from bertd_server.engine.sessions import SessionOptions, configured
from bertd_server.system import cache_folder, cpu

FOLDER = "prepacked"
"""Where in the cache folder the files are."""

_VERSION = 2  # of what `_write` writes; raise it when that changes
_RECORD = "record.json"
_FILES = ("model.onnx", "model.onnx.data")


class _Record(BaseModel, extra="forbid", frozen=True):
    """The files of a prepacked graph, as they were written."""

    files: dict[str, bundle.FileRecord]


@contextlib.contextmanager
def prepacked(
    folder: Path,
    manifest: bundle.Manifest,
    cache: Path | None,
    user: object = None,
    kernels: NativeKernels | None = None,
) -> Iterator[Path]:
    """Give the graph of a bundle with its weights prepacked in a file.

    Args:
        folder: a verified bundle.
        manifest: its manifest.
        cache: folder that keeps the files for the next start; None keeps them nowhere. On Linux
            a file that is mapped may be deleted.
        user: whose sessions map the files; while it lives no other server sweeps them away.
        kernels: of the sessions; a graph that is written with them is loaded with them alone.

    Yields:
        The graph's file, to be loaded at once.

    Raises:
        BundleError: the bundle was replaced meanwhile.
        OSError: the files cannot be written.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="bertd-") as unkept:
            yield _write(folder, Path(unkept), kernels)
        return
    entry = cache / FOLDER / _key(manifest, kernels)
    _use(entry, user)  # before the look at it: from here on nobody removes it
    if not _is_whole(entry):
        _put(folder, manifest, entry, kernels)
        _use(entry, user)
    yield entry / _FILES[0]


def _use(entry: Path, user: object) -> None:
    cache_folder.touch(entry)
    if user is not None:
        cache_folder.hold(entry, user)


def check_same(folder: Path, manifest: bundle.Manifest) -> None:
    """Refuse what was loaded of a bundle while another was put in its place: parts of both, maybe.

    Raises:
        BundleError: the manifest in the folder is another one.
    """
    if bundle.read_manifest(folder) != manifest:
        raise bundle.BundleError(
            f"{folder} was replaced while it was loaded: load it once more, and put each bundle "
            "into a new version to keep the two apart"
        )


def _put(
    bundle_folder: Path, manifest: bundle.Manifest, entry: Path, kernels: NativeKernels | None
) -> None:
    """Write an entry, or leave the whole one that another server puts there meanwhile.

    Raises:
        BundleError: another bundle came in the place of this one; nothing is kept under its name.
        OSError: the entry cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    with scratch.made(entry.parent, f"{entry.name}.") as folder:
        _write(bundle_folder, folder, kernels)
        check_same(bundle_folder, manifest)
        with scratch.one_at_a_time(entry.parent):
            if _is_whole(entry):
                return
            if entry.exists():  # damaged
                cache_folder.discard(entry)
            try:
                folder.rename(entry)
            except OSError:  # as it may be where nothing can be locked
                if not _is_whole(entry):
                    raise


def _write(folder: Path, target: Path, kernels: NativeKernels | None) -> Path:
    """Write the prepacked graph and its record; gives the graph's file.

    Raises:
        OSError: that failed.
    """
    graph, weights = _FILES
    options = configured(1, SessionOptions(kernels=kernels))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target / graph)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    try:
        ort.InferenceSession(
            str(folder / bundle.GRAPH_NAME), options, providers=providers.chain("cpu")
        )
    except Exception as error:  # a full disk has no type of its own in ONNX Runtime
        raise OSError(f"cannot write prepacked weights to {target.parent}: {error}") from error
    record = _Record(files={name: bundle.file_record(target / name) for name in _FILES})
    (target / _RECORD).write_text(record.model_dump_json(), encoding="utf-8")
    return target / graph


def _is_whole(folder: Path) -> bool:
    try:
        record = _Record.model_validate_json((folder / _RECORD).read_bytes())
    except (OSError, ValidationError):
        return False
    return set(record.files) == set(_FILES) and not any(
        bundle.file_problem(folder, name, expected) for name, expected in record.files.items()
    )


def _key(manifest: bundle.Manifest, kernels: NativeKernels | None) -> str:
    """Name of what fits these weights, this CPU, what computes and this writer alone."""
    parts = [f"{FOLDER} {_VERSION}"]
    parts += [manifest.files[name].sha256 for name in sorted(manifest.files)]
    parts += [ort.__version__, cpu.identity(), *([] if kernels is None else [str(kernels)])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
