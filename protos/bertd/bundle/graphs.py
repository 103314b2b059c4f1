"""What a graph file refers to, and how large its tables are, before ONNX Runtime opens it.

A graph may keep weights in other files, by path, offset and length. A bundle's may be in the
files that its manifest lists, and nowhere else: not in ``../`` or at ``/``, and not past their
ends. The few fields of onnx.proto that lead there are declared here, so that nothing but protobuf
is needed and whatever else a graph holds is passed over.

https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from bertd.bundle import (
    GRAPH_NAME,
    INPUT_IDS,
    POSITION_IDS,
    TOKEN_TYPE_IDS,
    BundleError,
    Manifest,
)

MAX_GRAPH_BYTES = 64 * 1024 * 1024
"""Weights are in a file of their own; the graph of 24 layers has 120 KB without them."""

_REMEDY = "export the model again"
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL
_SAME_VALUES = (b"Unsqueeze", b"Squeeze", b"Reshape", b"Cast", b"Identity")

# message -> (field, its number in onnx.proto, its type; a message's name, or a scalar)
_FIELDS: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Model": (("graph", 7, "Graph"), ("training", 20, "Training"), ("functions", 25, "Function")),
    "Training": (("initialization", 1, "Graph"), ("algorithm", 2, "Graph")),
    "Function": (
        ("name", 1, "bytes"),
        ("input", 4, "texts"),
        ("node", 7, "Node"),
        ("attribute_proto", 11, "Attribute"),
    ),
    "Graph": (("node", 1, "Node"), ("initializer", 5, "Tensor"), ("sparse", 15, "Sparse")),
    "Node": (
        ("input", 1, "texts"),
        ("output", 2, "texts"),
        ("op_type", 4, "bytes"),
        ("attribute", 5, "Attribute"),
    ),
    "Attribute": (
        ("t", 5, "Tensor"),
        ("g", 6, "Graph"),
        ("tensors", 10, "Tensor"),
        ("graphs", 11, "Graph"),
        ("sparse_tensor", 22, "Sparse"),
        ("sparse_tensors", 23, "Sparse"),
    ),
    "Sparse": (("values", 1, "Tensor"), ("indices", 2, "Tensor")),
    "Tensor": (
        ("dims", 1, "ints"),
        ("name", 8, "bytes"),
        ("external_data", 13, "Entry"),
        ("data_location", 14, "int"),
    ),
    "Entry": (("key", 1, "bytes"), ("value", 2, "bytes")),
}


def check_graph(folder: Path, manifest: Manifest) -> None:
    """Refuse a graph that is none, is too large, or has weights outside its bundle.

    Args:
        folder: a bundle whose files are verified.
        manifest: its manifest.

    Raises:
        BundleError: it names the tensor and the path.
    """
    path = folder / GRAPH_NAME
    for tensor in _tensors(_read(path)):
        if tensor.external_data or tensor.data_location == _EXTERNAL:
            _check_tensor(tensor, path, manifest)


def table_rows(folder: Path) -> dict[str, int]:
    """How many rows the table has in which each input of ids is looked up, of those that are.

    A model with rotary positions, for one, has no table of positions. Weights are not read.

    Args:
        folder: a bundle whose graph is checked.

    Raises:
        BundleError: the graph is none.
    """
    (graph, *_) = _read(folder / GRAPH_NAME).graph
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    source = {name.encode(): name for name in (INPUT_IDS, TOKEN_TYPE_IDS, POSITION_IDS)}
    found: dict[str, int] = {}
    for node in graph.node:  # in an order in which each comes after what it reads
        first = node.input[0] if node.input else b""
        if node.op_type in _SAME_VALUES and first in source:
            source.update(dict.fromkeys(node.output, source[first]))
        elif node.op_type == b"Gather" and first in rows and node.input[-1] in source:
            name = source[node.input[-1]]
            found[name] = min(rows[first], found.get(name, rows[first]))
    return found


def functions(graph: Path) -> dict[str, tuple[str, ...]]:
    """The graph's own functions: the names of what each takes, by its name.

    Args:
        graph: its file.

    Raises:
        BundleError: it is none.
    """
    return {
        function.name.decode(errors="replace"): tuple(
            name.decode(errors="replace") for name in function.input
        )
        for function in _read(graph).functions
    }


def _read(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_GRAPH_BYTES:
        raise BundleError(
            f"{path} has {size} bytes, a graph has at most {MAX_GRAPH_BYTES}: weights belong into "
            f"a file of their own; {_REMEDY}"
        )
    try:
        model = _model_class().FromString(path.read_bytes())
    except DecodeError as error:
        raise BundleError(f"{path} is no ONNX graph: {_REMEDY}") from error
    if not model.graph:
        raise BundleError(f"{path} holds no graph: {_REMEDY}")
    return model


def _check_tensor(tensor: Any, path: Path, manifest: Manifest) -> None:
    """Refuse weights that are elsewhere than in a file of the bundle."""
    name = tensor.name[:100].decode(errors="replace")
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get(b"location", b"").decode(errors="replace")
    record = manifest.files.get(location)
    if len(where) < len(tensor.external_data):
        raise BundleError(f"{path}: tensor {name!r} says twice where it is: {_REMEDY}")
    if record is None:
        raise BundleError(
            f"{path}: tensor {name!r} is in {location[:200]!r}, which is no file of the bundle "
            f"({', '.join(sorted(manifest.files))}): {_REMEDY}"
        )
    offset, length = (_number(where.get(key, b"0")) for key in (b"offset", b"length"))
    if offset is None or length is None or offset + length > record.bytes:
        raise BundleError(
            f"{path}: tensor {name!r} ends beyond {location} ({record.bytes} bytes): {_REMEDY}"
        )


def _number(text: bytes) -> int | None:
    """A whole number that is not negative, of at most 19 digits; else None."""
    return int(text) if text.isdigit() and len(text) <= 19 else None  # 2**63 has 19


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a message, whatever they are nested in; protobuf bounds how deeply."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for one in value:
            if field.message_type.name == "Tensor":
                yield one
            elif field.message_type.name != "Entry":
                yield from _tensors(one)


@cache
def _model_class() -> Any:
    """The class of a model, in a pool of its own: the onnx package may have the real one."""
    scalar = descriptor_pb2.FieldDescriptorProto
    kinds = {
        "bytes": (scalar.LABEL_OPTIONAL, scalar.TYPE_BYTES),
        "int": (scalar.LABEL_OPTIONAL, scalar.TYPE_INT32),
        "texts": (scalar.LABEL_REPEATED, scalar.TYPE_BYTES),
        "ints": (scalar.LABEL_REPEATED, scalar.TYPE_INT64),
    }
    file = descriptor_pb2.FileDescriptorProto(name="graphs.proto", package="bertd.bundle.graphs")
    file.syntax = "proto2"
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            # Messages are taken as repeated, so that one that comes twice is looked at twice:
            # readers of onnx.proto itself merge them.
            if kind in kinds:
                added.label, added.type = kinds[kind]
            else:
                added.label, added.type = added.LABEL_REPEATED, added.TYPE_MESSAGE
                added.type_name = f".bertd.bundle.graphs.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bertd.bundle.graphs.Model"))
