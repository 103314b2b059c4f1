"""Bodies of requests: counted before they are read, inflated a piece at a time."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from typing import Any

import pytest
from bertd_server.errors import InvalidInput
from bertd_server.http import bodies
from bertd_server.http.bodies import LEAST_BYTES, MOST_NUMBERS, MOST_VALUES
from bertd_server.scheduling.memory_budget import MemoryBudget
from hypothesis import given
from hypothesis import strategies as st

PADDING = b" " * (LEAST_BYTES + 1)
LARGE = 16 * 2**20
values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text('a"\\,[{', max_size=8)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=3), inner)),
    max_leaves=12,
)


def counted(value: Any) -> tuple[int, int]:
    """Strings, lists and objects of a value; commas between its parts."""
    if isinstance(value, str):
        return 1, 0
    if not isinstance(value, list | dict):
        return 0, 0
    inner = [
        counted(one) for one in ([*value, *value.values()] if isinstance(value, dict) else value)
    ]
    return 1 + sum(one[0] for one in inner), max(0, len(value) - 1) + sum(one[1] for one in inner)


@given(values)
async def test_values_are_counted_as_json_has_them(value: Any) -> None:
    """What is within a string is part of it, quotes and backslashes too."""
    body = PADDING + json.dumps(value).encode()
    strings, commas = counted(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "MOST_VALUES", strings)
        patch.setattr(bodies, "MOST_NUMBERS", commas)
        await bodies.check_values(body)
        if strings:
            patch.setattr(bodies, "MOST_VALUES", strings - 1)
            with pytest.raises(InvalidInput, match="split it"):
                await bodies.check_values(body)
        patch.setattr(bodies, "MOST_VALUES", strings)
        if commas:
            patch.setattr(bodies, "MOST_NUMBERS", commas - 1)
            with pytest.raises(InvalidInput, match="split it"):
                await bodies.check_values(body)


@pytest.mark.parametrize(
    ("part", "limit"),
    [(b'"",', MOST_VALUES), (b"[],", MOST_VALUES), (b"1,", MOST_NUMBERS), (b"[", MOST_VALUES)],
)
async def test_millions_of_values_are_refused_before_any_is_made(part: bytes, limit: int) -> None:
    with pytest.raises(InvalidInput, match=f"at most {limit}") as refused:
        await bodies.check_values(b"[" + part * (LARGE // len(part)))
    assert refused.value.reason == "too_many"


@pytest.mark.parametrize("part", [b"x", b'\\"', b"\\\\", b",[{"])
async def test_one_long_string_is_one_value(part: bytes) -> None:
    await bodies.check_values(b'{"input": "' + part * (LARGE // 32 // len(part)) + b'"}')


async def test_what_inflates_beyond_the_limit_is_refused() -> None:
    headers = {"content-encoding": "deflate"}
    bomb = zlib.compress(bytes(LARGE))
    with pytest.raises(InvalidInput, match="at most 1000000"):
        await bodies.inflated(bomb, headers, 1_000_000)
    assert len(await bodies.inflated(bomb, headers, LARGE)) == LARGE


async def test_a_large_body_has_memory_before_it_is_read() -> None:
    """Three times what it may be, inflated; of one that waits nothing has been read."""
    memory, most = MemoryBudget(60_000_000), 16_000_000

    async def size(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        room = await bodies.room(memory, named, most, math.inf)
        if room is None:
            return 0
        with room:
            return room.size

    assert await size(content_length="262144") == 0
    assert await size(content_length="262145") == 3 * 262_145
    assert await size(content_length="1000", content_encoding="gzip") == 3 * 1_032_000
    assert await size(content_length="1000000", content_encoding="gzip") == 3 * most
    assert await size(transfer_encoding="chunked") == 3 * most
    with pytest.raises(InvalidInput, match="16000001 bytes or more"):
        await size(content_length="16000001")
    held = await bodies.room(memory, {"content-length": str(most)}, most, math.inf)
    assert held is not None
    waiting = asyncio.ensure_future(size(content_length=str(most)))
    await asyncio.sleep(0)
    assert not waiting.done()
    held.release()
    assert await waiting == 3 * most
