"""Load reports with unequal servers, simulated."""

from tools.unequal import OBJECTIVE, simulated_tail


def test_load_reports_carry_a_quarter_more_than_taking_turns() -> None:
    """One lane and two: turns end where the one lane is full, at 20 texts a second."""
    assert simulated_tail(weighted=False, rate=20, seconds=300) > OBJECTIVE
    assert simulated_tail(weighted=True, rate=25, seconds=300) < OBJECTIVE
