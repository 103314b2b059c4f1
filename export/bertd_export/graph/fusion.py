"""Whether ONNX Runtime runs fused attention wherever the model calls attention."""

from collections.abc import Iterable
from pathlib import Path

import onnx

from bertd_export.errors import ExportError
from bertd_export.graph.operators import ATTENTION, FUSED_ATTENTION
from bertd_export.graph.runtime import optimized


def _count(nodes: Iterable[onnx.NodeProto], *, inside: bool) -> int:
    total = 0
    for node in nodes:
        total += inside and node.op_type in {FUSED_ATTENTION, ATTENTION}
        for attribute in node.attribute:
            if attribute.HasField("g"):
                total += _count(attribute.g.node, inside=inside or node.op_type in {"Loop", "If"})
    return total


def check_fusion(graph: Path, calls: int) -> None:
    """Check that ONNX Runtime runs fused attention wherever the model calls attention.

    Args:
        graph: the file.
        calls: how often the model calls attention.

    Raises:
        ExportError: it does not.
    """
    saved = onnx.load(str(graph), load_external_data=False)
    fused = {function.name: _count(function.node, inside=False) for function in saved.functions}
    attention = [fused[node.op_type] for node in saved.graph.node if fused.get(node.op_type)]
    if len(attention) != calls:
        raise ExportError(f"the graph calls attention {len(attention)} times instead of {calls}")
    model = optimized(graph)
    found = _count(model.graph.node, inside=False)
    if found != sum(attention):
        raise ExportError(
            f"ONNX Runtime keeps {found} fused attention nodes of {sum(attention)} in {calls} calls"
        )
