"""Kernels of the package bertd-native, where it is installed: what computes a bundle on this CPU.

::

    functions of the graph ──find──> NativeKernels ──register──> options of a session
                                └──> None: stock operators, the functions' own bodies

The server and the exporter ask here, so that a bundle is compared with PyTorch by the kernels that
will serve it.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from bertd.bundle.graphs import functions

KernelChoice = Literal["auto", "native", "stock"]
"""`native` kernels or none, `stock` operators, or `auto`: native where they are."""


@dataclass(frozen=True, slots=True)
class NativeKernels:
    """Kernels for one graph.

    Attributes:
        library: path of the shared library.
        version: of the package.
        isa: the instruction set that they use.
        operators: names of the graph's functions whose place they take; at least one.
        attention: precision of attention's products.
    """

    library: str
    version: str
    isa: str
    operators: tuple[str, ...]
    attention: Literal["fp32", "bf16"] = "fp32"

    def register(self, options: Any) -> None:
        """Have a session use them.

        Args:
            options: the `onnxruntime.SessionOptions` of the session.
        """
        package = _package()
        options.add_session_config_entry(package.ISA_ENTRY, self.isa)
        options.add_session_config_entry(package.OPS_ENTRY, ",".join(self.operators))
        options.add_session_config_entry(package.ATTENTION_ENTRY, self.attention)
        options.register_custom_ops_library(self.library)

    def __str__(self) -> str:
        how = f"{self.isa} bf16-attention" if self.attention == "bf16" else self.isa
        return f"bertd-native {self.version} {how}: {', '.join(self.operators)}"


def find(graph: Path) -> NativeKernels | None:
    """The kernels for a graph; None where there are none.

    Args:
        graph: its file.

    Raises:
        BundleError: the file is no graph.
    """
    if missing() is not None:
        return None
    package = _package()
    isa = package.instruction_set()
    found = functions(graph)
    operators = package.fitting(found, isa)
    if not operators:
        return None
    attention = package.attention(found, isa)
    return NativeKernels(str(package.LIBRARY), package.__version__, isa, operators, attention)


@functools.cache
def missing() -> str | None:
    """Why this machine has no native kernels; None where it has."""
    try:
        package = _package()
    except ImportError:
        return "the package bertd-native is not installed"
    try:
        isa = package.instruction_set()
    except OSError as error:
        return f"the library of bertd-native does not load ({error})"
    if isa is None:
        return f"bertd-native {package.__version__} has no kernels for this CPU"
    return None


def _package() -> ModuleType:
    return importlib.import_module("bertd_native")
