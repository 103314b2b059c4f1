"""Writes the linear layers of an fp32 graph as model-local functions of domain ``bertd``.

::

    product ─> bias ─┬─────────────────────────────> Fp32Linear
                     ├─> Gelu ─────────────────────> Fp32LinearGelu, Fp32LinearGeluTanh
                     └─> + stream ─> LayerNorm ────> Fp32LinearNorm

The weight is stored in panels, ``[outputs / 32, inputs, 32]``: kernels read them where the file is
mapped, so that they need no copy of their own. The function's body puts the columns side by side
again, which ONNX Runtime does once, as it loads the graph, before it prepacks them as before.

Other products keep their nodes: of weights whose outputs are no multiple of 32, or that others
read, and without a bias.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bertd_export.graph.calls import Call, Graph, attribute, share_epsilon, write_calls
from bertd_export.graph.operators import constant

PANEL = 32  # columns; the kernels' fp32_panel
INPUTS = ("x", "weight", "bias", "stream", "gamma", "beta")
"""Of every function, in this order; what one has no use for is absent in its calls."""


def _is_bias(graph: Graph, name: str, product: onnx.NodeProto) -> bool:
    weight = graph.constants[product.input[1]]
    return name in graph.constants and list(graph.constants[name].dims) == [weight.dims[1]]


def _product(call: Call, node: onnx.NodeProto) -> str:
    """The weight from its panels, and the product; gives its name within the function."""
    call.name = "Fp32Linear"
    panels = call.feed("weight", node.input[1])
    call.body += [
        helper.make_node("Transpose", [panels], ["rows"], perm=[1, 0, 2]),
        constant("side_by_side", np.array([0, -1], np.int64)),
        helper.make_node("Reshape", ["rows", "side_by_side"], ["matrix"]),
    ]
    return call.step(node, [call.feed("x", node.input[0]), "matrix"], "product")


def _norm(call: Call, node: onnx.NodeProto) -> bool:
    """Go on through the sum with stream and bias and its LayerNormalization, if there is one."""
    graph = call.graph
    total = graph.reads(node.output[0], "Sum")
    norm = graph.reads(total.output[0], "LayerNormalization") if total is not None else None
    if total is None or norm is None or len(total.input) != 3 or len(norm.input) != 3:
        return False
    if attribute(norm, "axis") not in {None, -1} or not graph.read_once(total.output[0]):
        return False
    others = [name for name in total.input if name != node.output[0]]
    biases = [name for name in others if _is_bias(graph, name, node)]
    if len(others) != 2 or len(biases) != 1:
        return False
    [bias] = biases
    [stream] = [name for name in others if name != bias]
    terms = [_product(call, node), call.feed("stream", stream), call.feed("bias", bias)]
    call.name += "Norm"
    call.step(total, terms, "sum")
    gamma, beta = call.feed("gamma", norm.input[1]), call.feed("beta", norm.input[2])
    call.step(norm, ["sum", gamma, beta], "normed")
    share_epsilon(call, norm)
    call.outputs["normed"] = norm.output[0]
    return True


def _biased(call: Call, node: onnx.NodeProto) -> bool:
    """Go on through the bias, and through Gelu where it follows; whether there is a bias."""
    graph = call.graph
    add = graph.reads(node.output[0], "Add")
    biases = [name for name in add.input if _is_bias(graph, name, node)] if add is not None else []
    if add is None or len(biases) != 1:
        return False
    call.step(add, [_product(call, node), call.feed("bias", biases[0])], "biased")
    output = add.output[0]
    call.outputs = {"biased": output}
    gelu = graph.reads(output, "Gelu")
    if gelu is None or not graph.read_once(output):
        return True
    call.name += "GeluTanh" if attribute(gelu, "approximate") == b"tanh" else "Gelu"
    call.step(gelu, ["biased"], "gelu")
    call.outputs = {"gelu": gelu.output[0]}
    return True


def _fits(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a product of which something is made, by a weight that has panels."""
    if node.op_type != "MatMul" or not graph.read_once(node.output[0]):
        return False
    weight = graph.constants.get(node.input[1])
    return (
        weight is not None
        and weight.data_type == TensorProto.FLOAT
        and len(weight.dims) == 2
        and weight.dims[1] % PANEL == 0
    )


def _calls(graph: Graph) -> list[Call]:
    """What becomes calls: of each weight all products or none."""
    calls = []
    for node in graph.nodes:
        call = Call(graph, INPUTS, frozenset())
        if _fits(graph, node) and (_norm(call, node) or _biased(call, node)) and call.in_order():
            calls.append(call)
    read = dict.fromkeys(graph.constants, 0)
    for call in calls:
        read[call.inputs["weight"]] += 1
    return [
        call
        for call in calls
        if read[call.inputs["weight"]] == len(graph.readers[call.inputs["weight"]])
    ]


def _to_panels(weight: TensorProto) -> None:
    matrix = numpy_helper.to_array(weight)
    panels = matrix.reshape(len(matrix), -1, PANEL).transpose(1, 0, 2)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(panels), weight.name))


def write_linear_functions(model: onnx.ModelProto) -> None:
    """Replace products with weights, and what follows each, by calls of functions.

    Args:
        model: with its weights; changed in place.
    """
    calls = _calls(Graph(model.graph))
    write_calls(model, calls)
    weights = {call.inputs["weight"] for call in calls}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            _to_panels(tensor)
