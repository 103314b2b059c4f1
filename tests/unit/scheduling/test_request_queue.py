"""The virtual time of what waits."""

from __future__ import annotations

from bertd_server.scheduling.request_queue import ArrivalClock


def test_the_clock_waits_for_the_rest_of_a_large_call() -> None:
    """Whoever comes while it should have run arrives with it, and not behind all that followed."""
    clock = ArrivalClock()
    assert clock.reads(10.0) == 10.0
    for arrival in (10.5, 11.0, 11.5):
        clock.add(arrival)
    assert clock.reads(10.2) == 10.2
    assert clock.reads(15.0) == 10.5
    clock.remove(10.5)
    assert clock.reads(15.25) == 10.75  # it goes on as time does
    assert clock.reads(17.0) == 11.0
    clock.remove(11.0)
    clock.remove(11.5)
    assert clock.reads(18.0) == 18.0
