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

import onnx

from bertd_export.graph.calls import Call, Graph, attribute, share_epsilon, write_calls

INTEGER_PRODUCT = "MatMulIntegerToFloat"
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


def _quantize(call: Call, node: onnx.NodeProto, source: str, prefix: str, result: str) -> str:
    scale = call.feed(f"{prefix}_scale", node.input[1])
    zero = call.feed(f"{prefix}_zero", node.input[2])
    return call.step(node, [source, scale, zero], result)


def _rows_of(call: Call, product: onnx.NodeProto) -> str | None:
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
    call: Call, quantize: onnx.NodeProto, scaled: onnx.NodeProto, inverse: onnx.NodeProto
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


def _product(call: Call, node: onnx.NodeProto) -> str:
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


def _gelu(call: Call, output: str) -> bool:
    """Go on through Gelu to uint8, if the graph does; whether it did."""
    graph = call.graph
    gelu = graph.reads(output, "Gelu")
    if gelu is None or not graph.read_once(output):
        return False
    quantize = graph.reads(gelu.output[0], "QuantizeLinear")
    if quantize is None or not graph.read_once(gelu.output[0]):
        return False
    call.name += "GeluTanh" if attribute(gelu, "approximate") == b"tanh" else "Gelu"
    call.step(gelu, [call.body[-1].output[0]], "gelu")
    _quantize(call, quantize, "gelu", "y", "y_rows")
    call.outputs["y_rows"] = quantize.output[0]
    return True


def _norm(call: Call, output: str) -> bool:
    """Go on through the sum and LayerNormalization, if the graph does; whether it did."""
    graph = call.graph
    total = graph.reads(output, "Sum")
    norm = graph.reads(total.output[0], "LayerNormalization") if total is not None else None
    if total is None or norm is None or not graph.read_once(output) or len(total.input) != 2:
        return False
    if total.input[0] == total.input[1] or attribute(norm, "axis") not in {None, -1}:
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
    share_epsilon(call, norm)
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


def _quantized(graph: Graph, name: str) -> tuple[onnx.NodeProto | None, onnx.NodeProto | None]:
    """What divides a tensor's channels by constants, if anything, and what makes them uint8."""
    smooth = graph.reads(name, "Mul")
    if smooth is not None and graph.rank(smooth.input[1]) == 1:
        quantize = graph.reads(smooth.output[0], "QuantizeLinear")
        if quantize is not None and graph.read_once(smooth.output[0]):
            return smooth, quantize
    return None, graph.reads(name, "QuantizeLinear")


def _calls(graph: Graph) -> list[Call]:
    """What becomes calls; no node is part of two."""
    calls: list[Call] = []
    taken: set[str] = set()
    for node in graph.nodes:
        if node.op_type != INTEGER_PRODUCT:
            continue
        call = Call(graph, INPUTS, taken)
        output = _product(call, node)
        if not _gelu(call, output) and not _norm(call, output):
            call.outputs = {call.body[-1].output[0]: output}
        if call.in_order():
            calls.append(call)
            taken.update(call.replaced)
    return calls


def write_functions(model: onnx.ModelProto) -> None:
    """Replace the integer products and what follows each by calls of functions."""
    write_calls(model, _calls(Graph(model.graph)))
