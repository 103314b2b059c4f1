"""How fast memory is read and copied: the machine's by so many threads, or a device's own.

Reading is the largest of int32 (SIMD, four times as fast on cached data as on memory here), on a
device of float32; copying counts every byte twice, once read and once written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from bertd_bench.hardware import kernels
from bertd_bench.hardware.kernels import Meter, TimedWork

_LEAST, _MOST = 1 << 26, 1 << 28  # bytes that are gone through: 64 MiB to 256 MiB
_MOVES = {"read": 1, "copy": 2}  # how often a byte moves


class Bandwidth(TimedWork, frozen=True):
    """Bytes a second of one way, with so many threads.

    Attributes:
        way: `read` or `copy`.
        threads: at once, each with a part of its own.
        bytes_moved: in one call.
    """

    way: str
    threads: int
    bytes_moved: int

    @property
    def work(self) -> float:
        """Bytes."""
        return self.bytes_moved


def size(cache: int | None) -> int:
    """Bytes to go through, so that no cache holds them: four times the last level's."""
    return min(_MOST, max(_LEAST, 4 * (cache or 0)))


def measure(total: int, meter: Meter) -> list[Bandwidth]:
    """Read and copy so many bytes in turns, with each number of threads or on the device.

    Raises:
        CannotServeError: the provider is not there, or does not start.
    """
    if meter.provider != "cpu":
        return measure_device(total, meter)
    source = np.ones(total // 4, np.int32)
    target = np.zeros_like(source)
    cells: list[tuple[str, int, Callable[[], object]]] = []
    with ThreadPoolExecutor(meter.threads) as pool:
        for count in meter.counts:
            parts = np.array_split(source, count)
            copied = zip(parts, np.array_split(target, count), strict=True)
            reads = [partial(np.max, part) for part in parts]
            copies = [partial(np.copyto, there, part) for part, there in copied]
            cells.append(("read", count, partial(_together, pool, reads)))
            cells.append(("copy", count, partial(_together, pool, copies)))
        return _measured(cells, total, meter)


def measure_device(total: int, meter: Meter) -> list[Bandwidth]:
    """Read and copy so many bytes of a device by ONNX Runtime's kernels on it."""
    operators: dict[str, tuple[str, dict[str, Any]]] = {
        "read": ("ReduceMax", {"keepdims": 0}),
        "copy": ("Neg", {}),
    }
    cells = []
    for way, (operator, attributes) in operators.items():
        value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
        graph = helper.make_graph(
            [helper.make_node(operator, ["x"], ["y"], **attributes)],
            way,
            [value("x", kind, ["n"])],
            [value("y", kind, [] if attributes else ["n"])],
        )
        session = kernels.session_of(graph, meter.threads, meter.provider)
        inputs = {"x": np.ones(total // 4, np.float32)}
        cells.append((way, meter.threads, kernels.bound(session, inputs, meter.provider)))
    return _measured(cells, total, meter)


def _measured(
    cells: Sequence[tuple[str, int, Callable[[], object]]], total: int, meter: Meter
) -> list[Bandwidth]:
    """Times of each way and number of threads."""
    named = [(f"{way}, {count} threads", count, call) for way, count, call in cells]
    return [
        Bandwidth(way=way, threads=count, bytes_moved=total * _MOVES[way], measured=each)
        for (way, count, _), each in zip(cells, meter.in_turns(named), strict=True)
    ]


def _together(pool: ThreadPoolExecutor, calls: Sequence[Callable[[], object]]) -> None:
    for done in [pool.submit(call) for call in calls]:
        done.result()
