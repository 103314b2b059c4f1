"""How fast linear layers are natively and by stock operators, in turns: a table.

::

    .venv/bin/python tests/tools/native_linear.py [--seconds 1] [--precision fp32]

Rows are the four linear layers of a BERT layer, by its hidden size; a number is how many times less
native kernels take for so many tokens: by the least CPU time on one thread, of int8 layers or fp32
ones. Weights are normal, as those of trained models nearly are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bertd_native
import numpy as np
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import fp32_layers  # noqa: E402
from helpers.int8_layers import WEIGHT_LEVELS, Layer, called, feeds, session  # noqa: E402

TOKENS = (1, 8, 16, 32, 128, 512)
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


def fp32(hidden: int) -> list[fp32_layers.Layer]:
    """The same four in fp32."""
    return [
        fp32_layers.Layer(inputs=hidden, outputs=3 * hidden),
        fp32_layers.Layer("Norm", inputs=hidden, outputs=hidden),
        fp32_layers.Layer("Gelu", inputs=hidden, outputs=4 * hidden),
        fp32_layers.Layer("Norm", inputs=4 * hidden, outputs=hidden),
    ]


def runs_of(precision: str, hidden: int) -> Iterator[tuple[Any, tuple[Any, Any]]]:
    """What gives a number of rows to each layer, and its sessions."""
    if precision == "int8":
        for layer in layers(hidden):
            yield partial(feeds, layer), sessions(layer)
    else:
        for one in fp32(hidden):
            model = fp32_layers.called(one)
            yield partial(fp32_layers.feeds, one), (session(model), session(model, "auto"))


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
    parser.add_argument("--precision", choices=("int8", "fp32"), default="int8")
    parser.add_argument("--seconds", type=float, default=1.0, help="for a number")
    chosen = parser.parse_args()
    print(f"| {bertd_native.instruction_set()} | {' | '.join(map(str, TOKENS))} |")
    print(f"|---|{'---:|' * len(TOKENS)}")
    for hidden in (384, 768, 1024):
        made = list(runs_of(chosen.precision, hidden))
        cells = []
        for tokens in TOKENS:
            spent = [least(runs, given(tokens, 0), chosen.seconds) for given, runs in made]
            stock, native = np.sum(spent, axis=0)
            cells.append(f"{stock / native:.2f}x")
        print(f"| {hidden} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
