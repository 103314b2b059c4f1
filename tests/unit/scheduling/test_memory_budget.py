"""Memory of requests in flight: who has it, who waits, who is refused; in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from bertd_server.errors import DeadlineMissed, Draining, Overloaded
from bertd_server.scheduling.memory_budget import MemoryBudget, Reservation
from helpers.virtual import virtually
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 8 * 2**20  # an eighth is for small calls
LARGE = 7 * 2**20
MIB = 2**20


def budget() -> MemoryBudget:
    return MemoryBudget(LIMIT, clock=asyncio.get_running_loop().time)


async def settled(call: Coroutine[Any, Any, Reservation]) -> asyncio.Task[Reservation]:
    """A call that has what it can have now, or waits."""
    task = asyncio.ensure_future(call)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def test_large_calls_wait_in_order_and_small_ones_go_on() -> None:
    async def main() -> None:
        memory = budget()
        first = await memory.reserve(6 * MIB)
        second, third = [await settled(memory.reserve(size * MIB)) for size in (5, 1)]
        assert (memory.waiting, memory.held) == (2, 6 * MIB)  # nobody overtakes for being smaller
        (await memory.reserve(1000)).release()
        first.release()
        await asyncio.sleep(0)
        (await second).release()
        (await third).release()
        assert (memory.waiting, memory.held, memory.busy) == (0, 0, False)

    virtually(main())


def test_a_call_of_few_words_never_waits_behind_long_texts() -> None:
    """Streams have hundreds of texts in work that are small calls too."""

    async def main() -> None:
        memory = budget()
        texts = [await settled(memory.reserve(30_000)) for _ in range(100)]
        assert memory.waiting > 70
        words = await settled(memory.reserve(2_000))
        (await words).release()
        grown = await memory.reserve(2_000)
        growing = asyncio.ensure_future(grown.resize(3_000))  # to be one of those, it goes first
        for text in texts:
            (await text).release()
        await growing
        grown.release()
        assert (memory.waiting, memory.held) == (0, 0)

    virtually(main())


def test_a_call_beyond_all_is_refused_at_once_with_field_bytes_limit_and_remedy() -> None:
    async def main() -> None:
        memory, refused = budget(), Counter[str]()
        with pytest.raises(
            Overloaded, match=r"inputs would take about 8 MiB .* 7 MiB here: .*--memory-limit"
        ) as found:
            await memory.reserve(LIMIT, field="inputs", refused=refused)
        assert (found.value.reason, found.value.in_vain) == ("call_memory", True)
        assert refused == {"call_memory": 1}
        assert memory.held == 0

    virtually(main())


def test_what_waits_is_bounded_by_its_own_requests() -> None:
    """They are in memory already; the refusal says when to come back."""

    async def main() -> None:
        memory = budget()
        first = await memory.reserve(LARGE)
        waits = await settled(memory.reserve(LARGE, request=2 * MIB))
        with pytest.raises(Overloaded, match="more wait: retry later") as found:
            await memory.reserve(LARGE, request=1 * MIB)
        assert (found.value.reason, found.value.in_vain) == ("memory", False)
        assert found.value.retry_after_seconds > 0
        first.release()
        (await waits).release()
        assert memory.held == 0

    virtually(main())


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_call_that_leaves_while_it_waits_takes_nothing(*, cancelled: bool) -> None:
    async def main() -> None:
        memory = budget()
        first = await memory.reserve(LARGE)
        now = asyncio.get_running_loop().time()
        waits = await settled(memory.reserve(LARGE, deadline=now + 5))
        behind = await settled(memory.reserve(MIB))
        if cancelled:
            waits.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else DeadlineMissed):
            await waits
        first.release()
        (await behind).release()
        assert (memory.waiting, memory.held) == (0, 0)

    virtually(main())


def test_a_call_that_is_let_go_as_it_is_cancelled_gives_its_bytes_back() -> None:
    async def main() -> None:
        memory = budget()
        first = await memory.reserve(LARGE)
        waits = await settled(memory.reserve(LARGE))
        first.release()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert memory.held == 0

    virtually(main())


def test_those_who_wait_are_told_that_the_server_stops() -> None:
    """The first in line and the one that grows too; who leaves at that moment has nothing."""

    async def main() -> None:
        memory, refused = budget(), Counter[str]()
        held = await memory.reserve(4 * MIB)
        growing = asyncio.ensure_future(held.resize(LARGE))
        other = await memory.reserve(3 * MIB)
        waiting = [await settled(memory.reserve(5 * MIB, refused=refused)) for _ in range(2)]
        assert memory.waiting == 3
        assert memory.give_up() == 3
        waiting[1].cancel()
        told = await asyncio.gather(growing, *waiting, return_exceptions=True)
        assert [type(one) for one in told] == [Draining, Draining, asyncio.CancelledError]
        assert refused == {"draining": 2}
        assert (memory.waiting, memory.held, memory.give_up()) == (0, LARGE, 0)
        other.release()
        held.release()
        (await memory.reserve(LARGE)).release()
        assert memory.held == 0

    virtually(main())


def test_who_has_bytes_and_needs_more_goes_first_and_a_second_one_is_refused() -> None:
    """Two that wait for each other would wait for ever."""

    async def main() -> None:
        memory = budget()
        one, other, third = [await memory.reserve(2 * MIB) for _ in range(3)]
        waits = await settled(memory.reserve(MIB + 1))
        growing = asyncio.ensure_future(one.resize(4 * MIB))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="retry later"):
            await other.resize(3 * MIB)
        third.release()
        await growing
        assert not waits.done()
        await one.resize(MIB)  # and what is not needed is given back
        (await waits).release()
        for each in (one, other):
            each.release()
            each.release()
        assert memory.held == 0

    virtually(main())


def test_a_small_call_that_turns_out_large_counts_as_one() -> None:
    async def main() -> None:
        memory = budget()
        with await memory.reserve(100) as call:
            seen = [memory.busy]
            await call.resize(3 * MIB)
            assert [*seen, memory.busy, memory.held] == [False, True, 3 * MIB]
        assert memory.held == 0

    virtually(main())


def test_what_a_call_has_may_last_as_long_as_its_task() -> None:
    async def main() -> None:
        memory = budget()

        async def call() -> None:
            with await memory.reserve(MIB) as held:
                held.release_after(asyncio.current_task())
            await asyncio.sleep(1)  # its answer is sent
            assert memory.held == MIB

        await asyncio.create_task(call())
        await asyncio.sleep(0)
        assert memory.held == 0

    virtually(main())


def test_while_paused_large_calls_wait_and_those_that_have_bytes_go_on() -> None:
    async def main() -> None:
        memory, freed = budget(), []
        memory.when_freed(lambda: freed.append(memory.held))
        first = await memory.reserve(MIB)
        memory.pause(paused=True)
        waits = await settled(memory.reserve(MIB))
        assert not waits.done()
        await first.resize(2 * MIB)
        first.release()
        await asyncio.sleep(0)
        assert not waits.done()
        memory.pause(paused=False)
        (await waits).release()
        assert freed == [0, 0]

    virtually(main())


@pytest.mark.parametrize(("calls", "told"), [(64, [0]), (4, [])])
def test_many_small_calls_together_are_told_of_as_a_large_one(calls: int, told: list[int]) -> None:
    """Requests of streams are small, and hundreds of them leave as much behind."""

    async def main() -> None:
        memory, freed = MemoryBudget(2**30, clock=asyncio.get_running_loop().time), list[int]()
        memory.when_freed(lambda: freed.append(memory.held))
        for one in [await memory.reserve(MIB) for _ in range(calls)]:
            one.release()
        assert freed == told
        (await memory.reserve(MIB)).release()
        assert freed == told

    virtually(main())


@given(st.lists(st.tuples(st.integers(1, LIMIT), st.integers(1, LIMIT), st.floats(0, 3))))
def test_no_more_is_held_than_there_is_and_all_comes_back(
    calls: list[tuple[int, int, float]],
) -> None:
    async def main() -> None:
        memory = budget()

        async def call(first: int, then: int, seconds: float) -> None:
            await asyncio.sleep(seconds)
            deadline = asyncio.get_running_loop().time() + 4
            try:
                with await memory.reserve(first, deadline=deadline) as held:
                    await asyncio.sleep(seconds)
                    await held.resize(then, deadline)
                    assert memory.held <= LIMIT
                    await asyncio.sleep(seconds)
            except (Overloaded, DeadlineMissed):
                pass

        await asyncio.gather(*(call(*each) for each in calls))
        assert (memory.held, memory.waiting) == (0, 0)

    virtually(main())
