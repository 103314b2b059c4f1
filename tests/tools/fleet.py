"""A fleet of servers behind a balancer, simulated: the tables of docs/scale.md.

::

    .venv/bin/python tests/tools/fleet.py              # some minutes: results, then the tables
    .venv/bin/python tests/tools/fleet.py --document   # the tables alone, from saved results

Time is virtual: the same seeds give the same numbers on any machine. Servers are the simulated ones
of `bertd bench simulate`, with bertd's own admission and batches and the measured cost of MiniLM.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bertd_bench.scheduling.costs import LANES, MEASURED
from bertd_server.scheduling.batching import Costs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.fleet import (  # noqa: E402 - found through the line above
    Balancer,
    Call,
    Fault,
    Fleet,
    LeastRequest,
    RoundRobin,
    Server,
    Weighted,
    calls_at,
    late,
    most,
    percentile,
)

RESULTS = Path(__file__).with_suffix(".json")
DOCUMENT = ROOT / "docs/scale.md"
BEGIN, END = "<!-- made by tests/tools/fleet.py -->", "<!-- /made -->"

OBJECTIVE = 0.1  # seconds, as `bertd bench load` has it
PATIENCE = 1.0  # seconds after which a caller has gone
SERVERS, SECONDS, WARM, SEED = 10, 5.0, 1.0, 1
LOADS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
MODEL = next(iter(MEASURED))
COSTS = MEASURED[MODEL]
FAULT_AT, FAULT_SECONDS, FAULT_LOAD = 2.0, 12.0, 0.6

Result = dict[str, Any]
BALANCERS: dict[str, Callable[[random.Random], Balancer]] = {
    "round robin, one proxy": lambda rng: RoundRobin(1, rng),
    "round robin, 200 clients": lambda rng: RoundRobin(200, rng),
    "least request, one proxy": lambda rng: LeastRequest(1, rng),
    "least request, 10 proxies": lambda rng: LeastRequest(10, rng),
    "load reports": Weighted,
}
CLIENTS, PROXY, REPORTS = list(BALANCERS)[1], list(BALANCERS)[2], list(BALANCERS)[4]
SIZES = ((1, 20), (2, 10), (4, 5))  # lanes, and how many servers have them
UNEQUAL = ((1, 4), (2, 4))
FAULTS = (  # whether a failed call is tried again, and what happens
    (True, Fault(FAULT_AT, "crash")),
    (False, Fault(FAULT_AT, "crash")),
    (True, Fault(FAULT_AT, "stuck", known=10.0)),
    (True, Fault(FAULT_AT, "stuck", known=2.0)),
    (True, Fault(FAULT_AT, "refusing")),
    (False, Fault(FAULT_AT, "refusing")),
)


def on_lanes(lanes: int) -> Costs:
    """The measured costs; the wide session's hold for the lanes of the measurement alone."""
    return COSTS if lanes == LANES else Costs(COSTS.lane)


def servers(sizes: Sequence[tuple[int, int]]) -> list[Server]:
    """Servers by their lanes, and how many have them."""
    return [Server(on_lanes(lanes), lanes) for lanes, count in sizes for _ in range(count)]


def rate(sizes: Sequence[tuple[int, int]]) -> float:
    """Texts a second that all of them do at most."""
    return sum(count * most(on_lanes(lanes), lanes) for lanes, count in sizes)


def played(
    name: str,
    sizes: Sequence[tuple[int, int]],
    load: float,
    fault: tuple[bool, Fault] | None = None,
) -> list[Call]:
    """All calls of a run behind a balancer.

    Args:
        name: of the balancer.
        sizes: lanes, and how many servers have them.
        load: offered work over what all of them do at most.
        fault: whether failed calls are tried again, and what happens to the first server.
    """
    rng = random.Random(SEED)
    calls = calls_at(load * rate(sizes), FAULT_SECONDS if fault else SECONDS, rng)
    retries, what = fault or (True, None)
    Fleet(servers(sizes), BALANCERS[name](rng), PATIENCE, what, retries).play(calls)
    return calls


def figures(calls: Sequence[Call]) -> Result:
    """What became of the calls after the warm-up: ms, and shares."""
    counted = [call for call in calls if call.at >= WARM]
    return {
        "p50": round(1e3 * percentile(counted, 0.5), 1),
        "p99": round(1e3 * percentile(counted, 0.99), 1),
        "late": round(late(counted, OBJECTIVE), 5),
    }


def lost(name: str, fault: tuple[bool, Fault]) -> Result:
    """What a fault costs: calls that were never answered, and late ones, of those after it."""
    calls = played(name, [(LANES, SERVERS)], FAULT_LOAD, fault)
    after = [call for call in calls if call.at >= FAULT_AT]
    never = sum(call.seconds > PATIENCE for call in calls)
    return {
        "lost": never,
        "share": round(never / len(after), 5),
        "late": round(late(after, OBJECTIVE), 5),
    }


def simulated(progress: Callable[[str], None]) -> Result:
    """Everything that the tables show."""

    def loads(name: str, sizes: Sequence[tuple[int, int]]) -> Result:
        progress(f"{name}: {sizes}")
        return {str(load): figures(played(name, sizes, load)) for load in LOADS}

    found: Result = {
        "loads": {name: loads(name, [(LANES, SERVERS)]) for name in BALANCERS},
        "unequal": {name: loads(name, UNEQUAL) for name in (CLIENTS, PROXY, REPORTS)},
        "sizes": {f"{size[1]} of {size[0]}": loads(CLIENTS, [size]) for size in SIZES},
        "faults": [],
    }
    for fault in FAULTS:
        progress(str(fault))
        found["faults"].append({name: lost(name, fault) for name in (CLIENTS, PROXY)})
    return found


def cell(row: Result) -> str:
    """The 99th percentile in ms; bold where that is too late."""
    p99 = row["p99"]
    if p99 <= 1e3 * OBJECTIVE:
        return f"{p99:.0f}"
    return f"**{p99:.0f}**" if p99 < 1e3 * PATIENCE else "**lost**"


def by_load(rows: Result, title: str) -> list[str]:
    """A table of 99th percentiles."""
    lines = [
        f"| {title} | " + " | ".join(str(load) for load in LOADS) + " |",
        "|---|" + "---:|" * len(LOADS),
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(row[str(load)]) for load in LOADS) + " |")
    return lines


def by_fault(rows: Sequence[Result]) -> list[str]:
    """A table of what was lost."""
    lines = [
        f"| fault | a failed call | {CLIENTS}: lost | late | {PROXY}: lost | late |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (retries, fault), row in zip(FAULTS, rows, strict=True):
        when = f", left out after {fault.known:.0f} s" if fault.known < PATIENCE * 1e3 else ""
        again = "is tried again" if retries else "is not"
        cells = [
            f"{one['lost']:,} ({100 * one['share']:.2f} %) | {100 * one['late']:.2f} %"
            for one in row.values()
        ]
        lines.append(f"| {fault.kind}{when} | {again} | {' | '.join(cells)} |")
    return lines


def table(found: Result) -> list[str]:
    """The lines of the document."""
    above = f"p99 in ms by the load, bold above {1e3 * OBJECTIVE:.0f}"
    after = f"in the {FAULT_SECONDS - FAULT_AT:.0f} s after it"
    return [
        f"{MODEL}, {SERVERS} servers of {LANES} lanes, {above}:",
        "",
        *by_load(found["loads"], "balancer"),
        "",
        "4 servers of one lane beside 4 of two:",
        "",
        *by_load(found["unequal"], "balancer"),
        "",
        f"20 lanes as servers of 1, 2 and 4, {CLIENTS}:",
        "",
        *by_load(found["sizes"], "servers"),
        "",
        f"One of {SERVERS} servers fails at a load of {FAULT_LOAD}; lost, and late, {after}:",
        "",
        *by_fault(found["faults"]),
    ]


def written(document: str, lines: Sequence[str], begin: str = BEGIN) -> str:
    """The document with these lines after a mark."""
    before, _, rest = document.partition(begin)
    after = rest.partition(END)[2]
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--document", action="store_true", help="simulate nothing")
    if not parser.parse_args().document:
        found = simulated(lambda what: print(what, flush=True))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
