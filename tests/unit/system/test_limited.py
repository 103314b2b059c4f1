"""A limit of time that costs nothing where nothing is waited for."""

from __future__ import annotations

import asyncio

import pytest
from bertd_server.system.limited import limited
from helpers.virtual import virtually


def test_work_that_waits_for_nothing_asks_for_no_limit() -> None:
    async def at_once() -> int:
        return 3

    async def fails() -> int:
        raise ValueError("five")

    def unasked() -> float:
        raise AssertionError("nobody waits")

    async def main() -> None:
        assert await limited(at_once(), unasked) == 3
        with pytest.raises(ValueError, match="five"):
            await limited(fails(), unasked)

    virtually(main())


def test_work_that_waits_has_its_time_and_no_more() -> None:
    async def sleeps(seconds: float) -> str:
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append(seconds)
            raise
        return "done"

    async def recovers() -> str:
        try:
            await asyncio.get_running_loop().run_in_executor(None, int, "x")
        except ValueError:
            return "no number"
        return ""

    async def main() -> None:
        assert await limited(sleeps(4.9), lambda: 5.0) == "done"
        assert await limited(sleeps(5.1), lambda: None) == "done"
        assert await limited(recovers(), lambda: None) == "no number"
        with pytest.raises(TimeoutError):
            await limited(sleeps(5.1), lambda: 5.0)
        assert ended == [5.1]
        call = asyncio.ensure_future(limited(sleeps(9.0), lambda: 99.0))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended == [5.1, 9.0]

    ended: list[float] = []
    virtually(main())
