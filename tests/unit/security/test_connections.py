"""Which connections end, so that no client has the slots of all others."""

from __future__ import annotations

from bertd_server.security.connections import Connection, _client, surplus
from hypothesis import given
from hypothesis import strategies as st

USED, SILENT = 1_000, 0


def some(peer: str, count: int, received: int, begin: int = 0) -> list[Connection]:
    return [Connection(f"{peer}{number + begin}", peer, received) for number in range(count)]


def names(ended: list[Connection]) -> set[str]:
    return {one.inode for one in ended}


def test_a_client_beyond_its_own_loses_what_says_nothing_oldest_first_then_its_newest() -> None:
    found = [*some("a", 4, USED), *some("a", 3, SILENT, 4), *some("b", 2, SILENT)]
    known = {one.inode: look for look, one in enumerate(found)}
    assert names(surplus(found, known, 6, 0)) == {"a4"}
    assert names(surplus(found, known, 4, 0)) == {"a4", "a5", "a6"}
    assert names(surplus(found, known, 3, 0)) == {"a4", "a5", "a6", "a3"}
    assert surplus(found, known, 0, 0) == []


def test_where_slots_are_few_what_has_made_no_call_ends_but_not_what_has_just_come() -> None:
    """Of the client that has most first."""
    found = [*some("a", 6, SILENT), *some("b", 2, SILENT), *some("c", 2, USED)]
    known = {one.inode: 1 for one in found if one.inode != "a5"}
    assert names(surplus(found, known, 0, 10)) == {"a0", "a1", "a2"}
    assert names(surplus(found, known, 0, 4)) == {"a0", "a1", "a2", "a3", "a4", "b0", "b1"}
    assert surplus(found, known, 0, 20) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([USED, SILENT])), max_size=40),
    st.integers(1, 9),
)
def test_no_client_keeps_more_than_its_own(kinds: list[tuple[str, int]], per_peer: int) -> None:
    found = [Connection(str(place), *kind) for place, kind in enumerate(kinds)]
    ended = surplus(found, {}, per_peer, 0)
    assert len(names(ended)) == len(ended)
    for peer in "abc":
        count = sum(one.peer == peer for one in found)
        assert count - sum(one.peer == peer for one in ended) == min(count, per_peer)


def test_a_client_of_ipv6_is_its_network() -> None:
    assert _client("2001:db8::1") == _client("2001:db8::2:3") != _client("2001:db8:1::1")
    assert _client("::ffff:10.0.0.1") == _client("10.0.0.1") == "10.0.0.1"
