"""Calibrates the linear layers of a packed fp32 graph and rounds their weights.

Rows that enter a linear layer are collected first; :mod:`.activations` then chooses how
they become uint8, and :mod:`.gptq` rounds the weight to 7 bits for just such rows.
:mod:`bertd_export.quantization.int8_graph` writes what comes out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bertd.bundle.arrays import Float32Array, Int64Array
from onnx import helper, numpy_helper

from bertd_export.graph.runtime import session
from bertd_export.quantization.activations import CalibrationRows, Quantizer, choose
from bertd_export.quantization.folding import Range
from bertd_export.quantization.gptq import Int8s, compensation, round_weight
from bertd_export.quantization.linear_layers import LinearLayer, find_linears

Feed = Mapping[str, Int64Array]
Group = list[
    list[LinearLayer]
]  # the linear layers that read each of some tensors, with equal weights

_ROW_BYTES = 1 << 30  # rows held at once; more are collected in further passes


@dataclass(frozen=True)
class RoundedLinear:
    """A linear layer in int8, and what that costs it.

    Attributes:
        linear: where it stands in the graph.
        quantizer: of its input, shared by the linear layers that read the same tensor.
        levels: int8 ``[inputs + copies, outputs]``.
        scales: of the weight, ``[outputs]``.
        bias: ``[outputs]``, if it has one.
        error: relative error of its products on calibration rows.
    """

    linear: LinearLayer
    quantizer: Quantizer
    levels: Int8s
    scales: Float32Array
    bias: Float32Array | None
    error: float


def _tensor(tensors: Mapping[str, onnx.TensorProto], name: str, folder: Path) -> Float32Array:
    array: Float32Array = numpy_helper.to_array(tensors[name], base_dir=str(folder))
    return array


def _grouped(linears: Iterable[LinearLayer]) -> list[Group]:
    """Linear layers that are rounded together.

    They read the same tensor, or have the same weights where layers share them (ALBERT): then
    one rounding serves all of them.
    """
    by_source: dict[str, list[LinearLayer]] = {}
    for linear in linears:
        by_source.setdefault(linear.source, []).append(linear)
    groups: dict[tuple[str, ...], Group] = {}
    for members in by_source.values():
        groups.setdefault(tuple(linear.weight for linear in members), []).append(members)
    return list(groups.values())


def _parts(
    groups: Iterable[Group], tensors: Mapping[str, onnx.TensorProto], tokens: int
) -> Iterator[list[Group]]:
    """As many groups at once as memory has room for their rows."""
    part: list[Group] = []
    size = 0
    for group in groups:
        cost = 4 * tokens * len(group) * int(tensors[group[0][0].weight].dims[0])
        if part and size + cost > _ROW_BYTES:
            yield part
            part, size = [], 0
        part.append(group)
        size += cost
    if part:
        yield part


def _watch(graph: Path, names: Sequence[str]) -> Any:
    """A session whose outputs are the named tensors."""
    watched = onnx.load(str(graph), load_external_data=False)
    del watched.graph.output[:]
    for name in names:
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        watched.graph.output.append(info)
    path = graph.with_name("watched.onnx")  # beside the weights that it refers to
    path.write_bytes(watched.SerializeToString())
    run = session(path)
    path.unlink()
    return run


def _rows(graph: Path, names: Sequence[str], feeds: Iterable[Feed]) -> Iterator[list[Float32Array]]:
    """What the tensors are in each feed, float32 ``[tokens, width]`` each."""
    run = _watch(graph, names)
    accepted = {entry.name for entry in run.get_inputs()}
    for feed in feeds:
        values = run.run(list(names), {k: v for k, v in feed.items() if k in accepted})
        yield [value.reshape(-1, value.shape[-1]) for value in values]


def ranges(graph: Path, linears: Sequence[LinearLayer], feeds: Sequence[Feed]) -> dict[str, Range]:
    """The least and the largest value of each channel of each tensor that a linear layer reads."""
    names = list(dict.fromkeys(linear.source for linear in linears))
    found: dict[str, Range] = {}
    for rows in _rows(graph, names, feeds):
        for name, values in zip(names, rows, strict=True):
            low, high = values.min(axis=0), values.max(axis=0)
            if name in found:
                low, high = np.minimum(low, found[name].low), np.maximum(high, found[name].high)
            found[name] = Range(low, high)
    return found


def round_linears(
    graph: Path, feeds: Sequence[Feed], progress: Callable[[str], None]
) -> list[RoundedLinear]:
    """Calibrate and round every linear layer of the encoder.

    Args:
        graph: the packed fp32 graph, its weights in a file beside it.
        feeds: packed batches of calibration texts, by input of the graph.
        progress: told what happens next.
    """
    skeleton = onnx.load(str(graph), load_external_data=False)
    tensors = {tensor.name: tensor for tensor in skeleton.graph.initializer}
    linears = find_linears(skeleton.graph)
    outputs = {linear.output for linear in linears}
    tokens = sum(max(len(values) for values in feed.values()) for feed in feeds)
    rounded: dict[str, RoundedLinear] = {}
    for part in _parts(_grouped(linears), tensors, tokens):
        sources = {members[0].source: number for number, g in enumerate(part) for members in g}
        progress(f"calibrating {len(sources)} inputs of linear layers")
        collected = [CalibrationRows() for _ in part]
        for rows in _rows(graph, list(sources), feeds):
            for number, values in zip(sources.values(), rows, strict=True):
                collected[number].add(values)
        progress(f"rounding the weights behind {len(sources)} inputs")
        collected.reverse()
        for group in part:
            for one in _round(group, collected.pop(), tensors, graph.parent, outputs):
                rounded[one.linear.name] = one
    return [rounded[linear.name] for linear in linears]


def _round(
    group: Group,
    seen: CalibrationRows,
    tensors: Mapping[str, onnx.TensorProto],
    folder: Path,
    outputs: set[str],
) -> Iterator[RoundedLinear]:
    weights = [_tensor(tensors, linear.weight, folder) for linear in group[0]]
    may_split = len(group) == 1 == len(weights) and group[0][0].widened in outputs
    quantizer = choose(group[0][0].producer, seen, weights, may_split=may_split)
    prepared = quantizer.prepared(seen.rows)
    order, upper = compensation(prepared.T @ prepared)
    sample = seen.sample
    restored = quantizer.restored(sample)
    for number, weight in enumerate(weights):
        levels, scales = round_weight(quantizer.weight(weight), order, upper)
        exact = sample @ weight
        lost = restored @ (levels * scales) - exact
        error = float(np.linalg.norm(lost)) / max(float(np.linalg.norm(exact)), 1e-12)
        for members in group:
            linear = members[number]
            bias = _tensor(tensors, linear.bias, folder) if linear.bias else None
            yield RoundedLinear(linear, quantizer, levels, scales, bias, error)
