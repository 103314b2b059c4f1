"""Machines and cost by the committed figures: the first tables of docs/scale.md.

::

    .venv/bin/python tests/tools/paper.py                          # writes them, at the price below
    .venv/bin/python tests/tools/paper.py --price 0.04 --cores 400 # prints them for yours

Rates are those of benchmarks/results (hardware.json, load.json) where there is one, else of the
cost models that `bertd bench simulate` has, which were measured too.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from bertd_bench.harness.texts import MIXED_LENGTHS
from bertd_bench.load.document import committed
from bertd_bench.scheduling.costs import LANES, MEASURED, capacity
from bertd_server.scheduling.cost import Shape

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tools.fleet import DOCUMENT, written  # noqa: E402 - found through the line above

RESULTS = ROOT / "benchmarks/results"
BEGIN = "<!-- made by tests/tools/paper.py -->"
PRICE, CORES = 0.1, 100  # of a core an hour, in any money; cores of the offline table
LENGTHS = (24, 128, 256)
LOADED = {"all-MiniLM-L6-v2": "MiniLM", "BERT-base, random weights": "BERT-base"}  # short names
MOST_TOKENS = 2_048  # the server's batches
RATE, LOAD = 10_000, 0.7  # calls a second; of what a server takes at the objective
HOURS = 720  # of a month
OBJECTIVE = 0.1  # seconds, for 99 of 100 calls
# CPU seconds of the server's process besides the model, for a call of one text among others:
# MiniLM, 16 tokens, November 2026. A lone call takes more: `tests/tools/lone_call.py` measures it.
CALL_SECONDS = 0.000401


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def engine_rates() -> dict[str, float]:
    """Texts of the mixed lengths a second on two lanes, without transport, by precision."""
    return {
        model["precision"]: max(
            statistics.median(way["rounds"])
            for way in model["ways"]
            if (way["lanes"], way["threads"]) == (LANES, 1)
        )
        for model in _result("hardware")["models"]
    }


def offline_rates() -> dict[tuple[str, int, str], float]:
    """Texts a second and core: model, tokens of a text, and where the figure is from."""
    found = {
        (f"MiniLM {precision}", 24, "measured"): rate / LANES
        for precision, rate in engine_rates().items()
    }
    for name, costs in zip(("MiniLM fp32", "BERT-base fp32"), MEASURED.values(), strict=True):
        for tokens in LENGTHS:
            if (name, tokens, "measured") not in found:
                rate = capacity(costs, LANES, MOST_TOKENS, [Shape.single(tokens)])
                found[name, tokens, "cost model"] = rate / LANES
    return found


def offline(price: float, cores: int) -> list[str]:
    """The table of core hours and cost."""
    spent = [f"core hours, {count} | cost | with {cores} cores" for count in ("10^8", "10^9")]
    lines = [
        f"| model | tokens | texts/s a core | from | {' | '.join(spent)} |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, tokens, origin), rate in offline_rates().items():
        cells = []
        for texts in (10**8, 10**9):
            hours = texts / rate / 3_600
            cells.append(f"{hours:,.0f} | {hours * price:,.0f} | {hours / cores:,.1f} h")
        lines.append(f"| {name} | {tokens} | {rate:,.0f} | {origin} | {' | '.join(cells)} |")
    return lines


def measured_rates() -> dict[str, float]:
    """Calls of one text a second with p99 within 100 ms, by the committed results of load."""
    return {
        f"{LOADED.get(report.model, report.model)} {entry.precision}": entry.rate(report.objective)
        for _, report in committed(RESULTS)
        if report.objective == OBJECTIVE
        for entry in report.entries
        if entry.own
    }


def online_rates() -> dict[str, tuple[float, str]]:
    """The same of all models, with how it is known.

    What was not measured is in proportion to the CPU time of a call, engine and front end.
    """
    measured = measured_rates()
    engines = {f"MiniLM {name}": LANES / rate for name, rate in engine_rates().items()}
    mixed = [Shape.single(length) for length in MIXED_LENGTHS]
    engines["BERT-base fp32"] = LANES / capacity(
        MEASURED["12 layers of 768 (BERT-base)"], LANES, MOST_TOKENS, mixed
    )
    base = engines["MiniLM fp32"] + CALL_SECONDS
    known = {
        name: (measured["MiniLM fp32"] * base / (seconds + CALL_SECONDS), "in proportion")
        for name, seconds in engines.items()
    }
    return known | {name: (rate, "measured") for name, rate in measured.items()}


def online(price: float) -> list[str]:
    """The table of servers for a rate of calls."""
    lines = [
        f"| model | calls/s, 2 cores | known | servers: {LOAD}, and one | cores | hour | month |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, (rate, known) in online_rates().items():
        servers = math.ceil(RATE / rate / LOAD) + 1
        cost = servers * LANES * price
        lines.append(
            f"| {name} | {rate:,.0f} | {known} | {servers} | {servers * LANES} | {cost:,.1f} |"
            f" {cost * HOURS:,.0f} |"
        )
    return lines


def table(price: float = PRICE, cores: int = CORES) -> list[str]:
    """The lines of the document."""
    calls = f"{RATE:,} calls a second of one text, 24 tokens on average"
    return [
        f"Offline, at {price} for a core and hour:",
        "",
        *offline(price, cores),
        "",
        f"Online, {calls}, p99 within {OBJECTIVE * 1e3:.0f} ms:",
        "",
        *online(price),
    ]


def main() -> None:
    """Write the tables, or print those for another price."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--price", type=float, help="of a core an hour")
    parser.add_argument("--cores", type=int, default=CORES, help="that work offline")
    given = parser.parse_args()
    if given.price is not None or given.cores != CORES:
        print("\n".join(table(given.price or PRICE, given.cores)))
        return
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(written(document, table(), BEGIN), encoding="utf-8")


if __name__ == "__main__":
    main()
