"""Writes the linear layers of an int8 graph as model-local functions of domain ``bertd``.

::

    quantise? ─> integer product, bias? ─┬─> float32                              Linear, Product
                                         ├─> Gelu ─> quantise                     Gelu, GeluTanh
                                         └─> + stream ─> LayerNorm ─> quantise?   Norm, Stream

A function's body is made of the very nodes that it replaces. ONNX Runtime puts them back before
it optimises the graph: the same operators, the same bits. A kernel that is registered under the
function's name computes all of it in one pass over the rows, from the same inputs.

A name says what a function does, stage by stage, so that each name has one body:

* ``Int8``: takes uint8 rows; ``Int8Static``: float32, quantised by constants; ``Int8Row`` and
  ``Int8GeluRow``: float32, quantised by the row's own largest magnitude or value
* ``Linear``: the product with the weight, and the bias; ``Product``: without one
* ``Gelu``, ``GeluTanh``: then Gelu, or its form with tanh, and to uint8
* ``Norm``: the sum with the stream, normalised: an output; ``Stream``: the same, but the sum is
  the output, for families that normalise first; ``Unshifted`` before it: no beta
* ``Smooth``, ``Quantize``: each channel times a constant; to uint8, an output as well
"""

from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper, numpy_helper

from bertd_export.graph.operators import DOMAIN, FUSED_DOMAIN, OPSET, constant, reference

INTEGER_PRODUCT = "MatMulIntegerToFloat"
EPSILON = "epsilon"

_OPSETS = (helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1))
INPUTS = (
    "x",
    "weight",
    "x_scale",
    "weight_scale",
    "x_zero",
    "bias",
    "floor",
    "stream",
    "gamma",
    "beta",
    "smooth",
    "y_scale",
    "y_zero",
)
"""Of every function, in this order; what one has no use for is absent in its calls."""


class _Graph:
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


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else None


@dataclass
class _Call:
    """Nodes that become one function, in order.

    Attributes:
        graph: where they stand.
        taken: first outputs of the nodes that other calls replace.
        name: of the function.
        replaced: first output of each node that it replaces.
        body: the same nodes, in names of the function.
        inputs: the tensors that it reads, by name within the function.
        outputs: the tensors that others read of it, by name within the function.
        attributes: of the call.
    """

    graph: _Graph
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
        inputs = [self.inputs.get(name, "") for name in INPUTS]
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
            list(INPUTS),
            list(self.outputs),
            self.body,
            list(_OPSETS),
            attributes=list(self.attributes),
        )


def _quantize(call: _Call, node: onnx.NodeProto, source: str, prefix: str, result: str) -> str:
    scale = call.feed(f"{prefix}_scale", node.input[1])
    zero = call.feed(f"{prefix}_zero", node.input[2])
    return call.step(node, [source, scale, zero], result)


def _rows_of(call: _Call, product: onnx.NodeProto) -> str | None:
    """Begin with the quantisation of the input where this product alone reads it.

    Returns:
        The rows' own scale within the function, where they have one.
    """
    graph, rows = call.graph, product.input[0]
    quantize = graph.makes(rows, "QuantizeLinear")
    scaled = graph.makes(quantize.input[0], "Mul") if quantize is not None else None
    inverse = graph.makes(scaled.input[1], "Reciprocal") if scaled is not None else None
    if quantize is None or rows in call.taken or not graph.read_once(rows):
        call.name = "Int8"
        call.feed("x", rows)
        return None
    if inverse is None or scaled is None:
        call.name = "Int8Static"
        _quantize(call, quantize, call.feed("x", quantize.input[0]), "x", "rows")
        return None
    return _own_scale(call, quantize, scaled, inverse)


def _own_scale(
    call: _Call, quantize: onnx.NodeProto, scaled: onnx.NodeProto, inverse: onnx.NodeProto
) -> str:
    """Quantise rows by their own largest value; return that."""
    producers = call.graph.producers
    largest = producers[inverse.input[0]]
    peak = producers[largest.input[0]]
    magnitude = call.graph.makes(peak.input[0], "Abs")
    call.name = "Int8GeluRow" if magnitude is None else "Int8Row"
    source = seen = call.feed("x", scaled.input[0])
    if magnitude is not None:
        seen = call.step(magnitude, [source], "magnitude")
    axes = call.fixed("axes", peak.input[1])
    call.step(peak, [seen, axes], "peak")
    call.step(largest, ["peak", call.feed("floor", largest.input[1])], "row_scale")
    call.step(inverse, ["row_scale"], "inverse")
    call.step(scaled, [source, "inverse"], "unit")
    _quantize(call, quantize, "unit", "x", "rows")
    return "row_scale"


def _product(call: _Call, node: onnx.NodeProto) -> str:
    """The product, times the row's scale, plus the bias; return its output in the graph."""
    row_scale = _rows_of(call, node)
    inputs = [*node.input, "", ""][:7]
    rows = "rows" if call.body else "x"
    operands = [rows, call.feed("weight", inputs[1]), call.feed("x_scale", inputs[2])]
    operands += [call.feed("weight_scale", inputs[3]), call.feed("x_zero", inputs[4])]
    if row_scale is None:
        biased = ["", call.feed("bias", inputs[6])] if inputs[6] else []
        call.name += "Linear" if biased else "Product"
        call.step(node, [*operands, *biased], "product")
        return node.output[0]
    call.step(node, operands, "integer")
    scale = call.graph.readers[node.output[0]][0]
    call.step(scale, ["integer", row_scale], "product")
    output = scale.output[0]
    add = call.graph.reads(output, "Add")
    if add is None or not call.graph.read_once(output) or call.graph.rank(add.input[1]) != 1:
        call.name += "Product"
        return output
    call.name += "Linear"
    call.step(add, ["product", call.feed("bias", add.input[1])], "biased")
    return add.output[0]


def _gelu(call: _Call, output: str) -> bool:
    """Go on through Gelu to uint8, if the graph does; whether it did."""
    graph = call.graph
    gelu = graph.reads(output, "Gelu")
    if gelu is None or not graph.read_once(output):
        return False
    quantize = graph.reads(gelu.output[0], "QuantizeLinear")
    if quantize is None or not graph.read_once(gelu.output[0]):
        return False
    call.name += "GeluTanh" if _attribute(gelu, "approximate") == b"tanh" else "Gelu"
    call.step(gelu, [call.body[-1].output[0]], "gelu")
    _quantize(call, quantize, "gelu", "y", "y_rows")
    call.outputs["y_rows"] = quantize.output[0]
    return True


def _norm(call: _Call, output: str) -> bool:
    """Go on through the sum and LayerNormalization, if the graph does; whether it did."""
    graph = call.graph
    total = graph.reads(output, "Sum")
    norm = graph.reads(total.output[0], "LayerNormalization") if total is not None else None
    if total is None or norm is None or not graph.read_once(output) or len(total.input) != 2:
        return False
    if total.input[0] == total.input[1] or _attribute(norm, "axis") not in {None, -1}:
        return False
    [stream] = [name for name in total.input if name != output]
    smooth, quantize = _quantized(graph, norm.output[0])
    first = graph.read_once(total.output[0])  # else the family normalises what it adds to the sum
    if not first and (quantize is None or not graph.read_once(norm.output[0])):
        return False
    shifted = [call.feed("beta", name) for name in norm.input[2:]]
    call.name += ("" if shifted else "Unshifted") + ("Norm" if first else "Stream")
    call.step(total, [call.feed("stream", stream), call.body[-1].output[0]], "sum")
    call.step(norm, ["sum", call.feed("gamma", norm.input[1]), *shifted], "normed")
    _epsilon(call, norm)
    call.outputs = {"normed": norm.output[0]} if first else {"sum": total.output[0]}
    if quantize is None:
        return True
    source = "normed"
    if smooth is not None:
        call.name += "Smooth"
        source = call.step(smooth, [source, call.feed("smooth", smooth.input[1])], "smoothed")
    call.name += "Quantize"
    _quantize(call, quantize, source, "y", "y_rows")
    call.outputs["y_rows"] = quantize.output[0]
    return True


def _epsilon(call: _Call, norm: onnx.NodeProto) -> None:
    """Make LayerNormalization's epsilon an attribute of the function; it is the call's."""
    copy = call.body[-1]
    for attribute in [a for a in copy.attribute if a.name == EPSILON]:
        copy.attribute.remove(attribute)
    copy.attribute.append(reference(EPSILON, EPSILON, onnx.AttributeProto.FLOAT))
    given = _attribute(norm, EPSILON)
    call.attributes[EPSILON] = 1e-5 if given is None else float(given)


def _quantized(graph: _Graph, name: str) -> tuple[onnx.NodeProto | None, onnx.NodeProto | None]:
    """What divides a tensor's channels by constants, if anything, and what makes them uint8."""
    smooth = graph.reads(name, "Mul")
    if smooth is not None and graph.rank(smooth.input[1]) == 1:
        quantize = graph.reads(smooth.output[0], "QuantizeLinear")
        if quantize is not None and graph.read_once(smooth.output[0]):
            return smooth, quantize
    return None, graph.reads(name, "QuantizeLinear")


def _calls(graph: _Graph) -> list[_Call]:
    """What becomes calls; no node is part of two."""
    calls: list[_Call] = []
    taken: set[str] = set()
    for node in graph.nodes:
        if node.op_type != INTEGER_PRODUCT:
            continue
        call = _Call(graph, taken)
        output = _product(call, node)
        if not _gelu(call, output) and not _norm(call, output):
            call.outputs = {call.body[-1].output[0]: output}
        if call.in_order():
            calls.append(call)
            taken.update(call.replaced)
    return calls


def write_functions(model: onnx.ModelProto) -> None:
    """Replace the integer products and what follows each by calls of functions."""
    graph = _Graph(model.graph)
    calls = _calls(graph)
    ends = {max(call.replaced, key=graph.place.__getitem__): call for call in calls}
    gone = {name for call in calls for name in call.replaced}
    nodes = []
    for node in graph.nodes:
        name = node.output[0]
        if name in ends:
            nodes.append(ends[name].call())
        elif name not in gone:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    used = {name for node in nodes for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in kept]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)
    functions = {call.name: call.function() for call in calls}
    model.functions.extend(functions[name] for name in sorted(functions))
