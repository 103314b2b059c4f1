"""Rewrites a packed fp32 graph to fp16, some of its nodes excepted.

::

    weights ──> fp16            node in fp16 ──Cast──> node in fp32 ──Cast──> node in fp16 …
    functions ──> fp16 twins                        (where kinds meet)      output ──Cast──> fp32

Every value lives in fp16 unless its node is excepted. The outputs of the graph stay float32, so
whoever runs it needs nothing new.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bertd_export.graph.operators import DOMAIN

LARGEST = float(np.finfo(np.float16).max)
_TWIN = "Half"  # ends the name of a function's fp16 twin


def _is_float(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT)


def _halved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor in fp16. What lies beyond its range, such as a mask's lowest float, saturates."""
    values = numpy_helper.to_array(tensor).clip(-LARGEST, LARGEST)
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _halve_type(info: onnx.ValueInfoProto) -> None:
    kind = info.type
    inner = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind
    if inner.tensor_type.elem_type == TensorProto.FLOAT:
        inner.tensor_type.elem_type = TensorProto.FLOAT16


def _halve_node(node: onnx.NodeProto) -> None:
    """Change what a node says of its type: casts, constants, empty sequences, bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("t") and _is_float(attribute.t):
            attribute.t.CopyFrom(_halved(attribute.t))
        if attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.HasField("g"):
            body = attribute.g
            for info in (*body.input, *body.output, *body.value_info):
                _halve_type(info)
            for tensor in body.initializer:
                if _is_float(tensor):
                    tensor.CopyFrom(_halved(tensor))
            for inner in body.node:
                _halve_node(inner)
    if node.op_type == "Constant" and node.attribute[0].name in {"value_float", "value_floats"}:
        given = node.attribute[0]
        numbers = given.f if given.name == "value_float" else list(given.floats)
        tensor = numpy_helper.from_array(np.array(numbers, np.float32))
        node.attribute[0].CopyFrom(helper.make_attribute("value", _halved(tensor)))


def _twin(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """The same function on fp16 values: its sequences, constants and casts change type."""
    twin = onnx.FunctionProto.FromString(function.SerializeToString())
    twin.name += _TWIN
    del twin.value_info[:]
    for node in twin.node:
        _halve_node(node)
    return twin


@dataclass
class _Writer:
    """Writes nodes of both kinds, with a Cast where a value of one reaches the other."""

    floats: Collection[str]  # values that were float32
    tensors: Mapping[str, onnx.TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    halves: set[str] = field(default_factory=set)  # values that now are fp16
    casts: set[str] = field(default_factory=set)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, *, half: bool) -> str:
        """The weight as a node of one kind reads it; both kinds may read the same."""
        tensor = self.tensors[name]
        if not half or not _is_float(tensor):
            self.constants[name] = tensor
            return name
        halved = f"{name}/fp16"
        if halved not in self.constants:
            self.constants[halved] = _halved(tensor)
            self.constants[halved].name = halved
        return halved

    def read(self, name: str, *, half: bool) -> str:
        """The value as a node of one kind reads it."""
        if name in self.tensors:
            return self.constant(name, half=half)
        if name not in self.floats or (name in self.halves) == half:
            return name
        cast = f"{name}/{'fp16' if half else 'fp32'}"
        if cast not in self.casts:
            self.casts.add(cast)
            self.cast(name, cast, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return cast

    def cast(self, name: str, to: str, kind: int) -> None:
        """Write a Cast."""
        self.nodes.append(helper.make_node("Cast", [name], [to], to=kind))

    def write(self, original: onnx.NodeProto, outputs: Collection[str], *, half: bool) -> None:
        """Write a node of one kind; an output of the graph is cast back to float32."""
        node = onnx.NodeProto.FromString(original.SerializeToString())
        node.input[:] = [self.read(name, half=half) for name in original.input]
        self.nodes.append(node)
        if not half:
            return
        _halve_node(node)
        if node.domain == DOMAIN:
            node.op_type += _TWIN
        made = [name for name in node.output if name in self.floats]
        self.halves.update(name for name in made if name not in outputs)
        for index, name in enumerate(node.output):
            if name in made and name in outputs:
                node.output[index] = f"{name}/inner"
                self.cast(node.output[index], name, TensorProto.FLOAT)


def write_fp16(
    fp32: onnx.ModelProto, floats: Collection[str], excepted: Collection[str]
) -> onnx.ModelProto:
    """A copy of the graph in fp16.

    Args:
        fp32: the packed graph, with its weights.
        floats: names of its values that are float32, weights aside.
        excepted: a node stays in fp32 if its first output is among these names.
    """
    result = deepcopy(fp32)
    graph = result.graph
    writer = _Writer(floats, {tensor.name: tensor for tensor in graph.initializer})
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        touches = any(name in floats for name in node.output) or any(
            name in floats for name in node.input
        )
        writer.write(node, outputs, half=touches and node.output[0] not in excepted)
    constants = [
        onnx.TensorProto.FromString(tensor.SerializeToString())
        for tensor in writer.constants.values()
    ]
    nodes = writer.nodes
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    called = {node.op_type for node in nodes if node.domain == DOMAIN}
    functions = [*result.functions, *map(_twin, result.functions)]
    del result.functions[:]
    result.functions.extend(function for function in functions if function.name in called)
    return result


def write_rounded(
    fp32: onnx.ModelProto, floats: Collection[str], excepted: Collection[str]
) -> onnx.ModelProto:
    """The graph of :func:`write_fp16` in fp32 arithmetic: what is stored in fp16 is rounded to it.

    ONNX Runtime's CPU provider computes an fp16 graph in fp32 and removes most of the casts on the
    way, so that it hides what an accelerator rounds between nodes. Here each value is rounded
    explicitly, and one beyond the range becomes infinite. What is inside functions is not.

    Args:
        fp32: the packed graph, with its weights.
        floats: names of its values that are float32, weights aside.
        excepted: as for :func:`write_fp16`.
    """
    result = deepcopy(fp32)
    graph = result.graph
    read_in_fp32 = {
        name for node in graph.node if node.output[0] in excepted for name in node.input
    }
    for tensor in graph.initializer:
        if _is_float(tensor) and tensor.name not in read_in_fp32:
            halved = numpy_helper.to_array(_halved(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        nodes.append(node)
        if node.output[0] in excepted:
            continue
        for index, name in enumerate(original.output):
            if name in floats:
                exact, stored = f"{name}/exact", f"{name}/fp16"
                node.output[index] = exact
                nodes += [
                    helper.make_node("Cast", [exact], [stored], to=TensorProto.FLOAT16),
                    helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT),
                ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return result
