"""PyTorch's table of ONNX translations, read once per process instead of once per export.

Reading it parses the source of 500 functions, a second of each export of a tiny model. An export
gets a copy to which it may add, as if it had been read again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry


def read_once(patch: pytest.MonkeyPatch) -> None:
    """Keep what :meth:`ONNXRegistry.from_torchlib` reads."""
    read: Any = cache(ONNXRegistry.from_torchlib)

    def copied(opset_version: int) -> ONNXRegistry:
        kept = read(opset_version=opset_version)
        registry = ONNXRegistry()
        registry._opset_version = opset_version
        registry.functions = {name: list(found) for name, found in kept.functions.items()}
        return registry

    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))  # also of an instance
