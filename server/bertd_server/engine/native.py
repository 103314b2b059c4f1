"""Whether native kernels compute a graph, as the setting and this machine have it."""

from __future__ import annotations

from pathlib import Path

from bertd.bundle import kernels
from bertd.bundle.kernels import KernelChoice, NativeKernels

from bertd_server.errors import MisusedError
from bertd_server.system.setting_types import Provider


def chosen(wanted: KernelChoice, provider: Provider, graph: Path) -> NativeKernels | None:
    """The kernels for a graph; None for stock operators.

    Args:
        wanted: the setting.
        provider: what computes; kernels are for the CPU.
        graph: its file, of a verified bundle.

    Raises:
        BundleError: the file is no graph.
        MisusedError: `native` is asked for, and this machine or the graph has none.
    """
    if wanted == "stock" or (wanted == "auto" and provider != "cpu"):
        return None
    found = kernels.find(graph) if provider == "cpu" else None
    if found is None and wanted == "native":
        raise MisusedError(f"kernels is native, but {_reason(provider, graph)}")
    return found


def _reason(provider: Provider, graph: Path) -> str:
    if provider != "cpu":
        return f"they are for a CPU, and provider is {provider}: leave kernels at auto"
    missing = kernels.missing()
    if missing is not None:
        return f"{missing}: install bertd-native (docs/native.md), or leave kernels at auto"
    return f"{graph} has no function that they know: leave kernels at auto"
