"""An event loop in virtual time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from bertd_bench.load import generator
from bertd_bench.load.generator import Closed, Open, TimedRequest

T = TypeVar("T")


class VirtualSelector(selectors.SelectSelector):
    """Where a loop would sleep, its clock jumps; each turn of the loop takes a microsecond."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += (timeout or 0.0) + 1e-6
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of virtual time."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


def virtually(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def load(plan: Closed | Open, system: generator.Send) -> list[TimedRequest]:
    return await generator.run(plan, system, asyncio.get_running_loop().time)
