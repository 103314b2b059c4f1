"""The best rate at which this machine multiplies matrices of a model's shapes, by numpy or torch.

The linear layers of a packed batch are one product each of `[tokens, in]` and `[in, out]`; their
time at this rate is the least that an engine can take, attention and the rest left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

Shape = tuple[int, int]


def layer_shapes(hidden: int, intermediate: int) -> list[Shape]:
    """`(in, out)` of the products of one layer: merged QKV, output, FFN up, FFN down."""
    return [(hidden, 3 * hidden), (hidden, hidden), (hidden, intermediate), (intermediate, hidden)]


def layer_flops(tokens: int, hidden: int, intermediate: int) -> float:
    """Floating-point operations of the linear layers of one layer."""
    return 2.0 * tokens * sum(a * b for a, b in layer_shapes(hidden, intermediate))


def attention_flops(lengths: Sequence[int], hidden: int) -> float:
    """Floating-point operations of scores and weighted values of one layer."""
    return 4.0 * hidden * sum(length * length for length in lengths)


def contestants(tokens: int, hidden: int, intermediate: int) -> dict[str, Callable[[], None]]:
    """Calls that do the products of one layer once, into buffers made beforehand."""
    rng = np.random.default_rng(0)
    shapes = layer_shapes(hidden, intermediate)
    inputs = [rng.standard_normal((tokens, a)).astype(np.float32) for a, _ in shapes]
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    outputs = [np.empty((tokens, b), np.float32) for _, b in shapes]
    tensors = [
        tuple(map(torch.from_numpy, three)) for three in zip(inputs, weights, outputs, strict=True)
    ]

    def numpy_layer() -> None:
        for x, w, out in zip(inputs, weights, outputs, strict=True):
            np.matmul(x, w, out=out)

    def torch_layer() -> None:
        with torch.inference_mode():
            for x, w, out in tensors:
                torch.matmul(x, w, out=out)

    return {"numpy": numpy_layer, "torch": torch_layer}
