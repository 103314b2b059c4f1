"""Finds groups of a graph's nodes that become calls of model-local functions.

A function's body is made of the very nodes that it replaces, so that ONNX Runtime, which puts them
back before it optimises, runs what it would run without. A kernel that is registered under the
function's name computes all of it at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper, numpy_helper

from bertd_export.graph.operators import DOMAIN, FUSED_DOMAIN, OPSET, constant, reference

EPSILON = "epsilon"

_OPSETS = (helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1))


class Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.place = {node.output[0]: number for number, node in enumerate(self.nodes)}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._outputs = {output.name for output in graph.output}

    def reads(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """The one node of that kind among those that read a tensor."""
        found = [node for node in self.readers.get(name, []) if node.op_type == op_type]
        return found[0] if len(found) == 1 else None

    def read_once(self, name: str) -> bool:
        """Whether one node reads a tensor, and nobody else."""
        return len(self.readers.get(name, [])) == 1 and name not in self._outputs

    def makes(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """The node which makes a tensor, if it is of that kind."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == op_type else None

    def rank(self, name: str) -> int:
        """Of a constant; -1 for what is none."""
        tensor = self.constants.get(name)
        return -1 if tensor is None else len(tensor.dims)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """Of a node; None where it has none of that name."""
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else None


@dataclass
class Call:
    """Nodes that become one function, in order.

    Attributes:
        graph: where they stand.
        formals: names of all inputs that the function has; a call lacks those it does not feed.
        taken: first outputs of the nodes that other calls replace.
        name: of the function.
        replaced: first output of each node that it replaces.
        body: the same nodes, in names of the function.
        inputs: the tensors that it reads, by name within the function.
        outputs: the tensors that others read of it, by name within the function.
        attributes: of the call.
    """

    graph: Graph
    formals: tuple[str, ...]
    taken: frozenset[str] | set[str]
    name: str = ""
    replaced: list[str] = field(default_factory=list)
    body: list[onnx.NodeProto] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def feed(self, formal: str, actual: str) -> str:
        """Make a tensor an input; return its name within the function."""
        self.inputs[formal] = actual
        return formal

    def fixed(self, name: str, actual: str) -> str:
        """Copy a small constant into the function; return its name there."""
        self.body.append(constant(name, numpy_helper.to_array(self.graph.constants[actual])))
        return name

    def step(self, node: onnx.NodeProto, operands: list[str], result: str) -> str:
        """Append a node with operands and a result of these names within the function."""
        self.replaced.append(node.output[0])
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.name = ""
        copy.input[:], copy.output[:] = operands, [result]
        self.body.append(copy)
        return result

    def in_order(self) -> bool:
        """Whether whoever reads an output stands behind all the nodes that are replaced."""
        graph, inner = self.graph, set(self.replaced)
        last = max(graph.place[name] for name in inner)
        readers = [node for name in self.outputs.values() for node in graph.readers.get(name, [])]
        return all(
            graph.place[node.output[0]] > last for node in readers if node.output[0] not in inner
        )

    def call(self) -> onnx.NodeProto:
        """The node in place of the others."""
        inputs = [self.inputs.get(name, "") for name in self.formals]
        outputs = list(self.outputs.values())
        while not inputs[-1]:
            inputs.pop()
        name = f"{outputs[0]}/{self.name}"
        return helper.make_node(
            self.name, inputs, outputs, domain=DOMAIN, name=name, **self.attributes
        )

    def function(self) -> onnx.FunctionProto:
        """What the call calls."""
        return helper.make_function(
            DOMAIN,
            self.name,
            list(self.formals),
            list(self.outputs),
            self.body,
            list(_OPSETS),
            attributes=list(self.attributes),
        )


def share_epsilon(call: Call, norm: onnx.NodeProto) -> None:
    """Make epsilon of LayerNormalization, the last step, an attribute of the function."""
    copy = call.body[-1]
    for own in [a for a in copy.attribute if a.name == EPSILON]:
        copy.attribute.remove(own)
    copy.attribute.append(reference(EPSILON, EPSILON, onnx.AttributeProto.FLOAT))
    given = attribute(norm, EPSILON)
    call.attributes[EPSILON] = 1e-5 if given is None else float(given)


def write_calls(model: onnx.ModelProto, calls: Iterable[Call]) -> None:
    """Replace nodes by calls, and leave out the constants that nobody reads then."""
    calls = list(calls)
    place = {node.output[0]: number for number, node in enumerate(model.graph.node)}
    ends = {max(call.replaced, key=place.__getitem__): call for call in calls}
    gone = {name for call in calls for name in call.replaced}
    nodes = []
    for node in model.graph.node:
        name = node.output[0]
        if name in ends:
            nodes.append(ends[name].call())
        elif name not in gone:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in read]:
        model.graph.initializer.remove(tensor)
    functions = {call.name: call.function() for call in calls}
    model.functions.extend(functions[name] for name in sorted(functions))
