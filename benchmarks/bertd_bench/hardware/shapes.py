"""The linear layers of a bundle, read from its graph, and what they cost in arithmetic and bytes.

Nothing is assumed of a family: whatever the packed graph multiplies tokens by is counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from bertd import bundle
from pydantic import BaseModel

_PRODUCTS = {"MatMul", "MatMulInteger", "MatMulIntegerToFloat"}  # Gemm works on a row a text


class Linear(BaseModel, frozen=True):
    """Products of one shape: `[tokens, rows]` by `[rows, columns]`.

    Attributes:
        rows: of the weights; what a token brings.
        columns: of the weights; what a token gets.
        count: how many of them the model has.
    """

    rows: int
    columns: int
    count: int

    @property
    def name(self) -> str:
        """Such as `384 x 1536`."""
        return f"{self.rows} x {self.columns}"

    def operations(self, tokens: int) -> float:
        """Multiplications and additions of all of them."""
        return 2.0 * tokens * self.rows * self.columns * self.count

    def weight_bytes(self, width: int) -> int:
        """Of all of them, with so many bytes a number."""
        return self.rows * self.columns * self.count * width


def of(folder: Path) -> list[Linear]:
    """The shapes of a bundle's products with constant weights, in the order of the graph.

    Raises:
        bundle.BundleError: it has none, so that there is no rate to measure.
    """
    graph = onnx.load(folder / bundle.GRAPH_NAME, load_external_data=False).graph
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = Counter(
        dims[node.input[1]]
        for node in graph.node
        if node.op_type in _PRODUCTS and len(dims.get(node.input[1], ())) == 2
    )
    if not found:
        raise bundle.BundleError(
            f"the graph in {folder} has no product with constant weights: "
            "the card is made of encoders' linear layers; choose another bundle"
        )
    return [Linear(rows=a, columns=b, count=count) for (a, b), count in found.items()]
