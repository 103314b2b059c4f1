"""The fleet of docs/scale.md: small cases by hand, and the tables are what the tools write."""

from __future__ import annotations

import json
import math
import random

import pytest
from bertd_bench.scheduling.costs import MEASURED
from bertd_server.scheduling.cost import Shape
from helpers.fleet import (
    Balancer,
    Call,
    Fault,
    Fleet,
    LeastRequest,
    RoundRobin,
    Server,
    Weighted,
    late,
    percentile,
)
from tools import fleet, paper

COSTS = next(iter(MEASURED.values()))


def played(
    balancer: Balancer, fault: Fault | None = None, *, retries: bool = True, gap: float = 0.01
) -> list[Call]:
    """Forty calls, so many seconds apart, on two servers of two lanes."""
    calls = [Call(gap * (number + 1), 16) for number in range(40)]
    servers = [Server(COSTS, 2) for _ in range(2)]
    Fleet(servers, balancer, 1.0, fault, retries).play(calls)
    return calls


def rng() -> random.Random:
    return random.Random(1)


def test_turns_are_taken_and_all_is_answered() -> None:
    calls = played(RoundRobin(1, rng()))
    assert [call.server for call in calls[::2]] == [calls[0].server] * 20
    assert {call.server for call in calls} == {0, 1}
    alone = {round(call.seconds, 6) for call in calls}
    assert len(alone) == 1  # nobody waits for anybody
    assert alone.pop() == round(COSTS.soonest(Shape.single(16)), 6)


def test_the_crash_of_one_loses_nothing_if_calls_are_tried_again() -> None:
    crash = Fault(0.2005, "crash")
    calls = played(RoundRobin(1, rng()), crash)
    assert all(call.ended < math.inf for call in calls)
    assert {call.server for call in calls if call.at > crash.at} == {1}
    lost = [call for call in played(RoundRobin(1, rng()), crash, retries=False) if call.ended > 9]
    assert [round(call.at, 2) for call in lost] in ([], [0.2])


def test_a_stuck_server_keeps_what_it_gets_until_it_is_known() -> None:
    stuck = Fault(0.195, "stuck", known=0.1)
    calls = played(RoundRobin(1, rng()), stuck)
    lost = [call for call in calls if call.ended == math.inf]
    assert len(lost) == 5
    assert all(0.195 <= call.at < 0.295 for call in lost)
    fewer = played(LeastRequest(1, rng()), stuck)
    assert sum(call.ended == math.inf for call in fewer) <= len(lost)


def test_who_refuses_draws_calls_by_least_request() -> None:
    refusing = Fault(0.0, "refusing")
    calls = played(LeastRequest(1, rng()), refusing, retries=False, gap=0.001)
    assert sum(call.ended == math.inf for call in calls) > 25  # of 40, where turns give 20
    assert all(call.ended < math.inf for call in played(LeastRequest(1, rng()), refusing))


def test_reports_give_the_larger_server_more() -> None:
    calls = [Call(0.005 * (number + 1), 16) for number in range(400)]
    servers = [Server(fleet.on_lanes(lanes), lanes) for lanes in (1, 2)]
    Fleet(servers, Weighted(rng()), 1.0).play(calls)
    weighed = [call.server for call in calls if call.at > 1]
    assert sum(weighed) / len(weighed) > 0.55


def test_shares_and_percentiles_count_what_was_lost() -> None:
    calls = [Call(0.0, 8, ended) for ended in (0.1, 0.2, 0.3, math.inf)]
    assert late(calls, 0.2) == 0.5
    assert percentile(calls, 0.75) == 0.3
    assert percentile(calls, 0.99) == math.inf


@pytest.mark.parametrize("tool", [fleet, paper], ids=["fleet", "paper"])
def test_the_document_is_what_the_tools_write(tool: object) -> None:
    """After a change of benchmarks/results: `.venv/bin/python tests/tools/paper.py`."""
    document = fleet.DOCUMENT.read_text(encoding="utf-8")
    if tool is paper:
        assert document == fleet.written(document, paper.table(), paper.BEGIN)
    else:
        results = json.loads(fleet.RESULTS.read_text(encoding="utf-8"))
        assert document == fleet.written(document, fleet.table(results))
