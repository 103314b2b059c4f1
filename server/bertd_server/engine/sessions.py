"""ONNX Runtime sessions: their options, and what they have in common.

::

    graph ──open_session──> session of so many threads ──┐
    graph ──open_session──> session of so many threads ──┴──> one arena for the buffers of all
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from bertd import bundle
from bertd.bundle.kernels import NativeKernels
from onnxruntime.capi import onnxruntime_pybind11_state as state

from bertd_server.engine import providers
from bertd_server.system.setting_types import Profile, Provider

_UNLOADABLE = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
)
_FEEDS = {
    bundle.INPUT_IDS,
    bundle.TOKEN_TYPE_IDS,
    bundle.POSITION_IDS,
    bundle.CU_SEQLENS,
    bundle.SHORT_RUNS,
    bundle.LONG_RUNS,
    bundle.MASK_POSITIONS,
    bundle.POOLED_TOKENS,
    bundle.POOLED_SEQLENS,
}
_SAID = 300  # characters of ONNX Runtime's own words
_SHARED_ARENA = "session.use_env_allocators"
_SHRINKING = "memory.enable_memory_arena_shrinkage"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the sessions of one engine have in common.

    Attributes:
        provider: what computes.
        profile: `latency` lets the threads of a wide run spin from one operator to the next;
            `efficient` puts them to sleep.
        kernels: take the place of the graph's functions; None for stock operators.
    """

    provider: Provider = "cpu"
    profile: Profile = "latency"
    kernels: NativeKernels | None = None


class Interrupt:
    """Ends the runs that were given it, at their next operator. Any thread may set it."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.options.log_severity_level = 4  # an end that was asked for is no error

    def set(self) -> None:
        """End them: they raise what ONNX Runtime raises for a run that fails."""
        self.options.terminate = True


def giving_back() -> Any:
    """Options of a run at whose end the arena gives all blocks back of which nothing is in use.

    Those of its own outputs are in use then: a large run is followed by a small one with these.
    """
    options = ort.RunOptions()
    options.add_run_config_entry(_SHRINKING, "cpu:0")
    return options


def open_session(graph: Path, threads: int, options: SessionOptions) -> Any:
    """Load a graph.

    Args:
        graph: its file; weights lie beside it.
        threads: of one run, the calling thread included.
        options: of the engine.

    Raises:
        CannotServeError: the provider is missing or does not start.
        BundleError: the graph is none that ONNX Runtime runs.
    """
    chain = providers.chain(options.provider)
    try:
        session = ort.InferenceSession(str(graph), configured(threads, options), providers=chain)
    except _UNLOADABLE as error:
        said = str(error).strip().partition("\n")[0][:_SAID]
        raise bundle.BundleError(
            f"ONNX Runtime does not load {graph} ({said}): export the model again with this bertd"
        ) from error
    providers.check_started(options.provider, session.get_providers())
    return session


def check_names(session: Any, folder: Path, manifest: bundle.Manifest) -> None:
    """Refuse a graph that asks for what no batch has, or lacks an output of its manifest.

    Raises:
        BundleError: it names them.
    """
    asked = {entry.name for entry in session.get_inputs()} - _FEEDS
    lacking = manifest.outputs.keys() - {entry.name for entry in session.get_outputs()}
    if asked or lacking:
        problem = f"asks for {sorted(asked)}" if asked else f"has no output {sorted(lacking)}"
        raise bundle.BundleError(
            f"the graph in {folder} {problem}, against its manifest: export the model again"
        )


def unread(session: Any) -> frozenset[str]:
    """Which of a batch's arrays the graph has no input for."""
    return frozenset(_FEEDS - {entry.name for entry in session.get_inputs()})


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
    if options.kernels is not None:
        options.kernels.register(result)
    return result


@functools.cache
def _register_arena() -> None:
    """One arena of the process for the buffers of all sessions; the defaults grow least."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, None)
