"""Two results of one kind side by side: `bertd bench diff A.json B.json`.

::

    A.json, B.json ──kind──> the same? ──figures──> name: value, better when higher or lower
                                        └─────────> table with B / A
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from bertd_bench.compare.results import Comparison
from bertd_bench.hardware.card import Card
from bertd_bench.harness.results import document_of
from bertd_bench.load.results import GoodputReport
from bertd_bench.regression.baseline import Baseline

Better = Literal["higher", "lower", ""]
COST, RATE = "cost of a million texts", "best sequences/s"
_EVEN = 0.02  # a smaller difference than this is called even
_ABOUT_THE_RUN = {"machine", "noise", "versions", "environments", "command", "settings"}
_NAMES = ("name", "model", "case", "batch", "contestant", "session", "policy", "benchmark")


class Figure(NamedTuple):
    """One number of a result.

    Attributes:
        value: in its unit.
        better: which direction is good; empty where nobody says.
    """

    value: float
    better: Better = ""


class ResultFile(NamedTuple):
    """One result.

    Attributes:
        path: its file.
        kind: of the result; only equal kinds compare.
        machine: on which it was measured, in words.
        figures: its numbers by name.
    """

    path: Path
    kind: str
    machine: str
    figures: dict[str, Figure]


def read(path: Path) -> ResultFile:
    """Read a result of any benchmark here.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result.
    """
    found = document_of(path)
    if not isinstance(found, dict) or not isinstance(machine := found.get("machine"), dict):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not an argument's type
            f"{path} names no machine: give a result of `bertd bench`"
        )
    try:
        figures = dict(_figures(found))
    except ValidationError as error:
        raise ValueError(f"{path} is a result of another version: measure it anew") from error
    return ResultFile(path, f"`{found.get('benchmark', 'unknown')}`", _machine(machine), figures)


def table(a: ResultFile, b: ResultFile) -> str:
    """Markdown: each number of both, and the second over the first.

    Raises:
        ValueError: the two are of different kinds, or share no number.
    """
    if a.kind != b.kind:
        raise ValueError(
            f"{a.path} is of {a.kind} and {b.path} of {b.kind}: give two results of one kind"
        )
    shared = [name for name in a.figures if name in b.figures]
    if not shared:
        raise ValueError(f"{a.path} and {b.path} share no number: measure the same models in both")
    lines = [
        verdict(a, b),
        "",
        f"- A: {a.path.name}, {a.machine}",
        f"- B: {b.path.name}, {b.machine}",
        "",
        "| | A | B | B / A | |",
        "|---|---:|---:|---:|---|",
    ]
    for name in shared:
        one, two = a.figures[name], b.figures[name]
        ratio = two.value / one.value if one.value else float("nan")
        lines.append(
            f"| {name} | {_number(one.value)} | {_number(two.value)} | {ratio:.2f}x | "
            f"{_verdict(ratio, one.better)} |"
        )
    for side, other in ((a, b), (b, a)):
        alone = [name for name in side.figures if name not in other.figures]
        if alone:
            lines += ["", f"In {side.path.name} alone: {len(alone)} numbers, {alone[0]} the first."]
    return "\n".join(lines)


def verdict(a: ResultFile, b: ResultFile) -> str:
    """Which is better, in how many numbers and by how much on average; a price decides first."""
    judged = {
        name: (two.value / one.value) ** (1 if one.better == "higher" else -1)
        for name, one in a.figures.items()
        if one.better and one.value and (two := b.figures.get(name)) and two.value
    }
    if not judged:
        return "Nobody says which direction is good: no verdict."
    costs = {name: value for name, value in judged.items() if name.endswith(COST)}
    if costs:
        return " ".join(_cheaper(name, a, b) for name in costs)
    better = sum(value > 1 + _EVEN for value in judged.values())
    worse = sum(1 / value > 1 + _EVEN for value in judged.values())
    mean = geometric_mean(judged.values())
    size = f"{max(mean, 1 / mean):.2f} times as good on average"
    counts = f"{better} of {len(judged)} numbers are better in B, {worse} in A"
    if abs(mean - 1) <= _EVEN:
        return f"A and B are even: {counts}."
    return f"{'B' if mean > 1 else 'A'} is better: {size}; {counts}."


def _cheaper(name: str, a: ResultFile, b: ResultFile) -> str:
    """Which machine to buy for a model: texts for the money, and how fast it is."""
    model = name.removesuffix(f", {COST}")
    costs, rate = [side.figures[name].value for side in (a, b)], f"{model}, {RATE}"
    rates = [side.figures[rate].value for side in (a, b) if rate in side.figures]
    best = costs.index(min(costs))
    side, other = ("A", "B") if best == 0 else ("B", "A")
    speed = f", at {rates[best] / rates[1 - best]:.2f} times its texts a second" * (len(rates) == 2)
    if max(costs) <= min(costs) * (1 + _EVEN):
        return f"For {model} both cost the same, {costs[0]:.4g} a million texts{speed}."
    return (
        f"For {model} buy {side}: a million texts cost {costs[best]:.4g} there and "
        f"{costs[1 - best]:.4g} on {other}, {max(costs) / min(costs):.2f} times as much{speed}."
    )


def _verdict(ratio: float, better: Better) -> str:
    if not better or ratio != ratio:  # noqa: PLR0124 - not a number
        return ""
    if abs(ratio - 1) <= _EVEN:
        return "even"
    return "B better" if (ratio > 1) == (better == "higher") else "A better"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _machine(machine: Mapping[str, Any]) -> str:
    load = machine.get("load_average") or [float("nan")]
    return (
        f"{machine.get('cpu', 'unknown')}, {machine.get('usable_threads', '?')} threads, "
        f"load {load[0]:.2f}"
    )


def _figures(found: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    match found.get("benchmark"):
        case "hardware":
            return _of_card(Card.model_validate(found))
        case "compare":
            return _of_comparison(Comparison.model_validate(found))
        case "load":
            return _of_goodput(GoodputReport.model_validate(found))
        case "regress":
            return _of_baseline(Baseline.model_validate(found))
    return _leaves(found, "")


def _of_card(card: Card) -> Iterator[tuple[str, Figure]]:
    yield "effective cores", Figure(card.cores.effective, "higher")
    for memory in card.bandwidth:
        yield f"{memory.way}, {memory.threads} threads, GB/s", Figure(memory.rate, "higher")
    for product in card.products:
        yield f"{product.measured.name}, GOP/s", Figure(product.rate, "higher")
    for model in card.models:
        title = f"{model.name}, {model.precision}"
        for point in model.points:
            yield f"{title}, engine, {point.tokens} tokens, GOP/s", Figure(point.rate, "higher")
        for way in model.ways:
            name = f"{title}, {way.lanes} x {way.threads} threads, {way.texts} texts, sequences/s"
            yield name, Figure(way.rate, "higher")
        yield f"{title}, {RATE}", Figure(model.best.rate, "higher")
        yield f"{title}, best tokens/s", Figure(model.best.tokens_rate, "higher")
        cost = card.cost_per_million(model.best)
        if cost is not None:
            yield f"{title}, {COST}", Figure(cost, "lower")


def _of_comparison(found: Comparison) -> Iterator[tuple[str, Figure]]:
    for subject in found.subjects:
        for case in subject.cases:
            for row in case.rows:
                name = f"{subject.model}, {subject.threads} threads, {case.name}, {row.name}, ms"
                yield name, Figure(row.measured.median_ms, "lower")


def _of_goodput(found: GoodputReport) -> Iterator[tuple[str, Figure]]:
    for entry in found.entries:
        if entry.ramps:
            name = f"{found.model}, {entry.name}, texts/s within {1e3 * found.objective:.0f} ms"
            yield name, Figure(entry.rate(found.objective), "higher")


def _of_baseline(found: Baseline) -> Iterator[tuple[str, Figure]]:
    for each in found.cases:
        yield f"{each.name}, of the calibration kernel", Figure(found.ratio(each), "lower")


def _leaves(found: object, name: str) -> Iterator[tuple[str, Figure]]:
    """Numbers of any result; lists of numbers are samples, and stand there by their median."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            if key not in _ABOUT_THE_RUN:
                yield from _leaves(value, f"{name}, {key}" if name else str(key))
    elif isinstance(found, Sequence) and not isinstance(found, str):
        if found and all(_is_number(each) for each in found):
            yield f"{name}, median", Figure(float(median(found)))
            return
        for number, value in enumerate(found):
            label = number
            if isinstance(value, Mapping):
                label = next((value[key] for key in _NAMES if key in value), number)
            yield from _leaves(value, f"{name}, {label}")
    elif _is_number(found):
        yield name, Figure(float(found))  # type: ignore[arg-type] # it is a number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
