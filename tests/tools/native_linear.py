"""How fast int8 linear layers are natively and by stock operators, in turns: a table.

::

    .venv/bin/python tests/tools/native_linear.py [--seconds 1]

Rows are the four linear layers of a BERT layer, by its hidden size; a number is how many times less
native kernels take for so many tokens: by the least CPU time on one thread. Weights are normal, as
those of trained models nearly are.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import bertd_native
import numpy as np
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.int8_layers import WEIGHT_LEVELS, Layer, called, feeds, session  # noqa: E402

TOKENS = (1, 8, 32, 128, 512)
FEWEST = 5  # turns


def layers(hidden: int) -> list[Layer]:
    """Query, key and value; output of attention; up; down."""
    return [
        Layer(inputs=hidden, outputs=3 * hidden),
        Layer(given="Static", follow="Norm", levels=True, inputs=hidden, outputs=hidden),
        Layer(follow="Gelu", inputs=hidden, outputs=4 * hidden),
        Layer(follow="Norm", levels=True, inputs=4 * hidden, outputs=hidden),
    ]


def sessions(layer: Layer) -> tuple[Any, Any]:
    """Of stock operators and of native kernels, with normal weights of 7 bits."""
    model = called(layer)
    [weight] = [one for one in model.graph.initializer if one.name == "weight"]
    drawn = np.random.default_rng(0).normal(size=(layer.inputs, layer.outputs))
    levels = np.round(drawn / np.abs(drawn).max(0) * WEIGHT_LEVELS).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(levels, "weight"))
    return session(model), session(model, "auto")


def least(runs: tuple[Any, Any], feed: dict[str, Any], seconds: float) -> list[float]:
    """CPU seconds of a run, each session's."""
    found = [float("inf"), float("inf")]
    end, turn = time.perf_counter() + seconds, 0
    while turn < FEWEST or time.perf_counter() < end:
        for place, run in enumerate(runs):
            begin = time.thread_time()
            run.run(None, feed)
            found[place] = min(found[place], time.thread_time() - begin)
        turn += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for a number")
    chosen = parser.parse_args()
    print(f"| {bertd_native.instruction_set()} | {' | '.join(map(str, TOKENS))} |")
    print(f"|---|{'---:|' * len(TOKENS)}")
    for hidden in (384, 768, 1024):
        made = [(layer, sessions(layer)) for layer in layers(hidden)]
        cells = []
        for tokens in TOKENS:
            spent = [least(runs, feeds(layer, tokens, 0), chosen.seconds) for layer, runs in made]
            stock, native = np.sum(spent, axis=0)
            cells.append(f"{stock / native:.2f}x")
        print(f"| {hidden} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
