"""The graph as ONNX Runtime loads and optimises it on this machine.

Where native kernels are installed a session runs with them, as a server's does by default: what is
measured is what will serve.
"""

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from bertd.bundle.kernels import KernelChoice, find, missing

from bertd_export.errors import ExportError

CPU = "CPUExecutionProvider"


def session(
    graph: Path,
    options: ort.SessionOptions | None = None,
    provider: str = CPU,
    kernels: KernelChoice = "auto",
) -> Any:
    """Load a graph.

    Args:
        graph: path of the graph; its weights lie beside it.
        options: of the session.
        provider: ONNX Runtime's name of what computes; the CPU takes what it cannot.
        kernels: of a CPU: `stock` operators, `native` ones, or `auto`.

    Raises:
        ExportError: ONNX Runtime refuses the graph, or does not have the provider here; native
            kernels are asked for and there are none.
    """
    available = ort.get_available_providers()
    if provider not in available:
        raise ExportError(
            f"ONNX Runtime has no {provider} here; it has {', '.join(available)}: choose one of "
            f"them, or install the onnxruntime package of that accelerator"
        )
    options = options or ort.SessionOptions()
    options.log_severity_level = 3
    native = find(graph) if provider == CPU and kernels != "stock" else None
    if native is not None:
        native.register(options)
    elif kernels == "native":
        why = missing() or f"{provider} or this graph takes none"
        raise ExportError(f"native kernels do not run here: {why}; leave --kernels at auto")
    try:
        loaded = ort.InferenceSession(
            str(graph), options, providers=list(dict.fromkeys([provider, CPU]))
        )
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not load the graph: {error}") from error
    if loaded.get_providers()[0] != provider:  # it falls back to the CPU in silence
        raise ExportError(f"ONNX Runtime cannot start {provider} on this machine")
    return loaded


def optimized(graph: Path, *, for_this_cpu: bool = False) -> onnx.ModelProto:
    """The graph after ONNX Runtime's optimisers, functions inlined; without its weights.

    Native kernels, where there are any, stand in the place of their functions only for this CPU.

    Args:
        graph: path of the graph; its weights lie beside it.
        for_this_cpu: with the changes that depend on the hardware, as a session runs it.

    Raises:
        ExportError: ONNX Runtime refuses the graph.
    """
    levels = ort.GraphOptimizationLevel
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if for_this_cpu else levels.ORT_ENABLE_EXTENDED
        )
        options.optimized_model_filepath = str(path)
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, "optimized.data")
        session(graph, options, kernels="auto" if for_this_cpu else "stock")
        return onnx.load(str(path), load_external_data=False)
