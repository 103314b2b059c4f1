"""Writes graphs, their weights in a file beside each, so that no graph meets protobuf's 2 GiB."""

from copy import deepcopy
from pathlib import Path

import onnx
from bertd.bundle import WEIGHTS_NAME

_SMALLEST = 1024  # bytes; lesser tensors stay in the graph


def save_graph(graph: onnx.ModelProto, path: Path, weights: str = WEIGHTS_NAME) -> None:
    """Write a graph; its tensors move to the file, and refer to it from then on.

    Args:
        graph: changed as described.
        path: of the graph.
        weights: name of the file of weights beside it; an older one is replaced.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.with_name(weights).unlink(missing_ok=True)  # tensors would be appended
    onnx.save_model(
        graph,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=weights,
        size_threshold=_SMALLEST,
    )


def save_copy(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph and its weights, which stay in the graph as well."""
    save_graph(deepcopy(graph), path, f"{path.name}.data")
