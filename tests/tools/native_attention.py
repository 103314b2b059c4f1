"""How fast attention of one layer is natively and by its function's stock body, in turns.

::

    .venv/bin/python tests/tools/native_attention.py [--seconds 1] [--threads 1] \\
        [--isa avx2] [--attention bf16]

Rows are batches; a number is how many times less native kernels take: by the least CPU time on one
thread, by the least wall time on several.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from typing import Any

import bertd_native
import numpy as np
import onnx
import onnxruntime as ort
from bertd.bundle.runs import arrange
from bertd_export.graph.attention import packed_attention
from bertd_export.graph.biased_attention import biased_attention_function, trace_bias
from bertd_export.graph.local_attention import local_attention
from bertd_export.graph.position_bias import biased_attention
from onnx import helper, numpy_helper
from transformers import MPNetConfig, MPNetModel

BATCHES = {
    "1 x 8": [8],
    "1 x 32": [32],
    "1 x 128": [128],
    "1 x 512": [512],
    "1 x 2048": [2048],
    "32 x 8": [8] * 32,
    "16 mixed": [5, 7, 9, 12, 14, 17, 20, 24, 30, 37, 45, 60, 80, 110, 150, 220],
}
LAYERS = {
    "12 heads of 32": (32, None, False),
    "12 heads of 64": (64, None, False),
    "local, of 64": (64, 64, False),
    "MPNet's, of 64": (64, None, True),
}
HEADS = 12
Layer = tuple[int, int | None, bool]  # columns of a head, window, whether biased
FEWEST = 7  # turns
TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


@functools.cache
def mpnet() -> tuple[onnx.FunctionProto, Any]:
    """Attention with a bias from positions, and its distances."""
    size = max(sum(lengths) for lengths in BATCHES.values())
    config = MPNetConfig(num_hidden_layers=1, max_position_embeddings=size)
    layout = biased_attention(MPNetModel(config))
    assert layout is not None
    function = biased_attention_function(trace_bias(layout), merged=True)
    return function, layout.layers[0].tables[0].detach().numpy()


def feeds(size: int, lengths: list[int], *, local: bool, biased: bool) -> dict[str, Any]:
    """Random rows, and how they lie."""
    width, runs = HEADS * size, arrange(np.array(lengths, np.int64))
    rows = np.random.default_rng(0).normal(size=(sum(lengths), 3 * width)).astype(np.float32)
    parts = {name: rows[:, i * width : (i + 1) * width].copy() for i, name in enumerate("qkv")}
    cu = {"cu_seqlens": np.cumsum([0, *lengths])}
    if local:
        return {**parts, **cu}
    if biased:
        return {"qkv": rows, **cu}
    return {"qkv": rows, **cu, "short_runs": runs.short_runs, "long_runs": runs.long_runs}


def session(
    arrays: dict[str, Any], layer: Layer, threads: int, entries: dict[str, str] | None
) -> Any:
    """A graph of one call of the function; native with some entries of its session."""
    size, window, biased = layer
    held = {}
    function = packed_attention(merged=True) if window is None else local_attention()
    if biased:
        function, held["distances"] = mpnet()
    attributes: dict[str, Any] = {"num_heads": HEADS, "scale": size**-0.5}
    if window is not None:
        attributes["window"] = window
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(function.name, [*arrays, *held], ["out"], domain="bertd", **attributes)],
        "layer",
        [value(name, TYPES[x.dtype.name], [None] * x.ndim) for name, x in arrays.items()],
        [value("out", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = [helper.make_opsetid(*entry) for entry in (("", 23), ("com.microsoft", 1))]
    opsets.append(helper.make_opsetid("bertd", 1))
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern = threads, False
    options.log_severity_level = 3  # it warns of shapes in each run, which takes time
    if entries is not None:
        for key, value_of in entries.items():
            options.add_session_config_entry(key, value_of)
        options.register_custom_ops_library(str(bertd_native.LIBRARY))
    return ort.InferenceSession(model.SerializeToString(), options)


def gain(
    layer: Layer, lengths: list[int], threads: int, seconds: float, entries: dict[str, str]
) -> float:
    """How many times less native kernels take."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    size, window, biased = layer
    arrays = feeds(size, lengths, local=window is not None, biased=biased)
    ways = {
        "stock": session(arrays, layer, threads, None),
        "native": session(arrays, layer, threads, entries),
    }
    least = dict.fromkeys(ways, float("inf"))
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for how in ways if turn % 2 else reversed(ways):
            begin = clock()
            ways[how].run(None, arrays)
            least[how] = min(least[how], clock() - begin)
    return least["stock"] / least["native"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for a number")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default=bertd_native.AUTO, choices=bertd_native.available())
    parser.add_argument("--attention", default="fp32", choices=("fp32", "bf16"))
    chosen = parser.parse_args()
    entries = {
        bertd_native.ISA_ENTRY: chosen.isa,
        bertd_native.ATTENTION_ENTRY: chosen.attention,
    }
    print(
        f"| {bertd_native.instruction_set(chosen.isa)} {chosen.attention} | {' | '.join(BATCHES)} |"
    )
    print(f"|---|{'---:|' * len(BATCHES)}")
    for name, layer in LAYERS.items():
        found = [
            gain(layer, lengths, chosen.threads, chosen.seconds, entries)
            for lengths in BATCHES.values()
        ]
        print(f"| {name} | {' | '.join(f'{each:.2f}x' for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
