"""ONNX Runtime sessions over one bundle that hold its weights once.

::

    model.onnx ──pack──> prepacked/ ──map──> narrow session   runs on the thread that calls it
                         graph, weights ├──> wide session     runs on all threads
                                        └──> page cache: one copy, whoever maps it

A session rearranges the weights of matrix products for the CPU at hand ("prepacks" them) and
keeps that copy for itself, so that two sessions take twice the memory. Written to a file once and
mapped by both, the copy is shared. The file belongs to the CPU and the ONNX Runtime that made it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from bertd import bundle
from pydantic import BaseModel, ValidationError

from bertd_server import providers
from bertd_server.values import Profile, Provider

_RECORD = "record.json"
_FILES = ("model.onnx", "model.onnx.data")
_SHARED_ARENA = "session.use_env_allocators"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the sessions of one engine have in common.

    Attributes:
        provider: what computes.
        profile: `latency` lets the threads of a wide run spin from one operator to the next;
            `efficient` puts them to sleep.
    """

    provider: Provider = "cpu"
    profile: Profile = "latency"


class _Record(BaseModel, extra="forbid", frozen=True):
    """The files of a prepacked graph, as they were written."""

    files: dict[str, bundle.FileRecord]


def open_session(graph: Path, threads: int, options: SessionOptions) -> Any:
    """Load a graph.

    Args:
        graph: its file; weights lie beside it.
        threads: of one run, the calling thread included.
        options: of the engine.

    Raises:
        CannotServeError: the provider is missing or does not start.
    """
    session = ort.InferenceSession(
        str(graph),
        configured(threads, options),
        providers=providers.chain(options.provider),
    )
    providers.check_started(options.provider, session.get_providers())
    return session


def configured(threads: int, options: SessionOptions) -> ort.SessionOptions:
    """ONNX Runtime's options for runs on so many threads, the calling one included."""
    result = ort.SessionOptions()
    result.intra_op_num_threads = threads
    result.inter_op_num_threads = 1
    result.log_severity_level = 3
    # A plan of memory would be kept for every shape that ever ran; batches hardly repeat theirs.
    result.enable_mem_pattern = False
    # Within a run, threads may spin from one operator to the next: to wake one from sleep costs
    # as much as a small operator. Between runs they always sleep.
    spin = "1" if options.profile == "latency" else "0"
    result.add_session_config_entry("session.intra_op.allow_spinning", spin)
    result.add_session_config_entry("session.force_spinning_stop", "1")
    if options.provider == "cpu":
        _register_arena()
        result.add_session_config_entry(_SHARED_ARENA, "1")
    return result


@functools.cache
def _register_arena() -> None:
    """One arena of the process for the buffers of all sessions; the defaults grow least."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, None)


@contextlib.contextmanager
def prepacked(folder: Path, manifest: bundle.Manifest, cache: Path | None) -> Iterator[Path]:
    """Give the graph of a bundle with its weights prepacked in a file.

    Args:
        folder: a verified bundle.
        manifest: its manifest.
        cache: folder that keeps the files for the next start; None keeps them nowhere. On Linux
            a file that is mapped may be deleted.

    Yields:
        The graph's file, to be loaded at once.

    Raises:
        OSError: the files cannot be written.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="bertd-") as scratch:
            yield _write(folder, Path(scratch))
        return
    kept = cache / "prepacked" / _key(manifest)
    if not _is_whole(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{kept.name}.", dir=kept.parent) as scratch:
            _write(folder, Path(scratch))
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(FileExistsError):  # another server wrote it meanwhile
                Path(scratch).rename(kept)
            Path(scratch).mkdir(exist_ok=True)  # for its own removal
    yield kept / _FILES[0]


def _write(folder: Path, target: Path) -> Path:
    """Write the prepacked graph and its record; gives the graph's file."""
    graph, weights = _FILES
    options = configured(1, SessionOptions())
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target / graph)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    ort.InferenceSession(str(folder / bundle.GRAPH_NAME), options, providers=providers.chain("cpu"))
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


def _key(manifest: bundle.Manifest) -> str:
    """Name of what fits these weights, this CPU and this ONNX Runtime alone."""
    parts = [manifest.files[name].sha256 for name in sorted(manifest.files)]
    parts += [ort.__version__, cpu_identity()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@functools.cache
def cpu_identity() -> str:
    """Model and instruction sets of the CPU, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    wanted = {"model name": platform.processor(), "flags": "", "Features": ""}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            wanted[name.strip()] = value.strip()
    return "\n".join([platform.machine(), *wanted.values()])
