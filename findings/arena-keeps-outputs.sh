#!/usr/bin/env bash
# onnxruntime 1.32.0: a run makes an output of 128 MiB, once. With the run's option
# memory.enable_memory_arena_shrinkage ("cpu:0") the arena gives back what it does not use as the run
# ends. What is resident once the output has been deleted?
#
# Guess: without the option both the output and what the run took besides, as the arena keeps its
#        blocks; with it nothing of either.
# Seen:  with the option the output stays. Python's array is no copy but a view of the arena's block,
#        which so is in use at the moment of shrinking; when the array goes, nothing shrinks any more.
#        The memory goes back with the next run that has the option, however small that is: a large
#        run without it and a run of one row with it give all back, the other way round nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2
"$folder/env/bin/python" - <<'PYTHON'
import os

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

ROWS, MIB = 1_024, 2**20
SIZE = 32_768  # ROWS * SIZE * 4 bytes: 128 MiB


def node(*given):
    return helper.make_node(*given)


float32 = TensorProto.FLOAT
graph = helper.make_graph(
    [node("MatMul", ["x", "w"], ["product"]), node("Erf", ["product"], ["y"])],
    "large",
    [helper.make_tensor_value_info("x", float32, ["rows", 1])],
    [helper.make_tensor_value_info("y", float32, ["rows", SIZE])],
    [helper.make_tensor("w", float32, [1, SIZE], np.ones(SIZE, np.float32).tobytes(), raw=True)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
options = ort.SessionOptions()
options.enable_mem_pattern = False
session = ort.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
)
shrinking = ort.RunOptions()
shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def resident():
    """MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB


def run(rows, options=None):
    (found,) = session.run(["y"], {"x": np.ones((rows, 1), np.float32)}, options)
    return type(found.base).__name__


assert run(1, shrinking) == "PyCapsule"  # a view
before = resident()
kept = []
for large, small in ((None, None), (shrinking, None), (shrinking, shrinking), (None, shrinking)):
    run(ROWS, large)
    run(1, small)
    kept.append(resident() - before)
    run(1, shrinking)
    print("shrinks:", bool(large), bool(small), "-> MiB kept:", round(kept[-1]))
neither, large, both, small = kept
assert neither > 200, kept
assert 100 < large < 160, kept
assert max(both, small) < 30, kept
PYTHON
