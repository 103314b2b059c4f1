"""What is in a graph: inputs, outputs, functions, and operators before and after optimisation."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from bertd.bundle.kernels import find

from bertd_export.graph.runtime import optimized


@dataclass(frozen=True)
class Value:
    """An input or an output: its dtype, and its shape with names for what varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSummary:
    """Counts are by ``domain::operator``, most frequent first.

    ``operators`` are the file's own, calls of functions included; ``functions`` holds what each
    function does once; ``optimized`` is the graph as ONNX Runtime runs it on this machine, with
    functions inlined, and ``kernels`` what takes the place of functions there. Nodes inside loops
    count once each.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    functions: dict[str, dict[str, int]]
    optimized: dict[str, int]
    kernels: str


def summarize(path: Path) -> GraphSummary:
    """Summarise a graph; its weights must lie beside it.

    Raises:
        ExportError: ONNX Runtime does not load it.
    """
    model = onnx.load(str(path), load_external_data=False)
    return GraphSummary(
        inputs=tuple(map(_value, model.graph.input)),
        outputs=tuple(map(_value, model.graph.output)),
        operators=_counts(model.graph.node),
        functions={f"{f.domain}::{f.name}": _counts(f.node) for f in model.functions},
        optimized=_counts(optimized(path, for_this_cpu=True).graph.node),
        kernels=str(find(path) or "stock"),
    )


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return Value(info.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)


def _counts(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    found: Counter[str] = Counter()
    _add(nodes, found)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _add(nodes: Iterable[onnx.NodeProto], found: Counter[str]) -> None:
    for node in nodes:
        found[f"{node.domain or 'ai.onnx'}::{node.op_type}"] += 1
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _add(attribute.g.node, found)
