"""Long work on the event loop, of which each turn has one piece."""

from __future__ import annotations

import asyncio

from bertd_server.system.turns import Turns, give_way


async def test_a_turn_of_the_loop_has_one_piece_of_all_long_work() -> None:
    """In order, however many give way; who is cancelled meanwhile takes no turn."""
    turn, seen = 0, list[tuple[int, str]]()

    async def work(name: str) -> None:
        for _ in range(3):
            await give_way()
            seen.append((turn, name))

    tasks = [asyncio.create_task(work(name)) for name in ("a", "gone", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)
    assert [name for _, name in seen] == list("abc" * 3)
    turns = [when for when, _ in seen]
    assert turns == list(range(turns[0], turns[0] + 9))


def test_work_is_counted_until_a_turn_is_over() -> None:
    """And then anew."""
    turns = Turns(4)
    assert [turns.over() for _ in range(5)] == [False, False, False, True, False]
    assert [turns.over(5), turns.over(3), turns.over(1)] == [True, False, True]
