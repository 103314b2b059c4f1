"""The card in docs/lab/benchmarks.md: tables and sentences of what was measured of a machine."""

from __future__ import annotations

from pathlib import Path

from bertd_bench.docs import Section, link_to_result
from bertd_bench.hardware.card import Card, ModelCard
from bertd_bench.hardware.memory import Bandwidth
from bertd_bench.hardware.products import Product
from bertd_bench.hardware.ways import Way
from bertd_bench.harness.intervals import Interval
from bertd_bench.harness.results import read

DOCUMENT = "docs/lab/benchmarks.md"


def render(card: Card, link: str = "") -> str:
    """Tables and sentences.

    Args:
        card: what was measured.
        link: where its JSON file is, as seen from the document; empty leaves it out.
    """
    here = card.machine
    raw = f" Raw samples and versions: [`{link}`]({link})." if link else ""
    introduction = (
        f"`{card.command}`: {here.cpu}, {', '.join(here.features) or 'no features known'}, "
        f"{here.memory_bytes / 2**30:.0f} GiB, governor {here.governor or 'not readable'}, kernel "
        f"{here.kernel}, ONNX Runtime {here.versions['onnxruntime']}, provider {card.provider}. "
        f"Medians with 95 % intervals.{raw}"
    )
    parts = [
        introduction,
        "\n".join(f"- {fact}" for fact in _facts(card)),
        _table(
            ["memory, GB/s", *(f"{_threads(n)}" for n in _counts(card.bandwidth))],
            [
                [way, *(_rate(each) for each in card.bandwidth if each.way == way)]
                for way in ("read", "copy")
            ],
        ),
        *_products(card),
        *(part for model in card.models for part in _model(card, model)),
    ]
    if card.skipped:
        said = [f"- {name}: {reason}" for name, reason in card.skipped.items()]
        parts.append("\n".join(["Not measured:", "", *said]))
    parts.append(card.noise.verdict)
    return "\n\n".join(parts)


def _facts(card: Card) -> list[str]:
    facts = card.cores.facts(card.machine)
    interval = card.cores.interval
    if interval is not None:
        facts[-1] += f" ({interval.low:.2f} to {interval.high:.2f})"
    if card.cores.cache_bytes is not None:
        facts.append(f"last level of cache {card.cores.cache_bytes / 2**20:.0f} MiB")
    return facts


def _products(card: Card) -> list[str]:
    tables = []
    for kind, unit in (("fp32", "GFLOP/s"), ("int8", "u8 x s8, GOP/s")):
        own = [each for each in card.products if each.kind == kind]
        if not own:
            continue
        tokens = sorted({each.tokens for each in own})
        rows: dict[tuple[str, int], list[str]] = {}
        for each in own:
            rows.setdefault((each.linear.name, each.threads), []).append(f"{each.rate:,.0f}")
        heads = [f"products in {kind}, {unit}", "threads", *(f"{n} tokens" for n in tokens)]
        tables.append(
            _table(heads, [[name, str(threads), *cells] for (name, threads), cells in rows.items()])
        )
    return tables


def _model(card: Card, model: ModelCard) -> list[str]:
    roof = card.roof(model.kind)
    cached = card.cores.cache_bytes is not None and model.weight_bytes <= card.cores.cache_bytes
    size = (
        f"**{model.name}, {model.precision}**: the products' weights are "
        f"{model.weight_bytes / 1e6:.1f} MB, the file {model.file_bytes / 1e6:.1f} MB"
    )
    if roof is not None:
        size += (
            f"; the roof is {roof.peak:,.0f} GOP/s, and memory the bound below "
            f"{roof.ridge:.0f} operations a byte"
        )
    size += ", but for the cache, which holds the weights." if cached else "."
    heads = ["tokens of a batch", "operations a byte", "attainable", "reached, GOP/s"]
    points = _table(
        [*heads, "of attainable", "products alone / engine"],
        [
            [
                str(point.tokens),
                f"{point.intensity:.0f}",
                f"{roof.attainable(point.intensity):,.0f}" if roof else "",
                f"{point.rate:,.0f}",
                f"{point.rate / roof.attainable(point.intensity):.2f}" if roof else "",
                "" if point.efficiency is None else f"{point.efficiency:.2f}",
            ]
            for point in model.points
        ],
    )
    return [size, points, _ways(card, model)]


def _ways(card: Card, model: ModelCard) -> str:
    best: dict[tuple[int, int], Way] = {}
    for way in sorted(model.ways, key=lambda each: each.rate):
        best[way.lanes, way.threads] = way
    rows = []
    for way in sorted(best.values(), key=lambda each: -each.rate):
        cost = card.cost_per_million(way)
        rows.append(
            [
                f"{way.lanes} x {_threads(way.threads)}",
                str(way.texts),
                f"{way.rate:,.1f}{_between(way.interval)}",
                f"{way.tokens_rate:,.0f}",
                "no price given" if cost is None else f"{cost:,.2f}",
            ]
        )
    mean = sum(card.mix) / len(card.mix)
    return _table(
        [
            f"lanes x threads (texts of {mean:.0f} tokens on average)",
            "texts of a batch",
            "sequences/s",
            "tokens/s",
            "cost of a million texts"
            + (f" at {card.price_per_hour:g} an hour" if card.price_per_hour is not None else ""),
        ],
        rows,
    )


def _counts(found: list[Bandwidth]) -> list[int]:
    return sorted({each.threads for each in found})


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _rate(each: Bandwidth | Product) -> str:
    return f"{each.rate:.1f}{_between(each.interval)}"


def _between(interval: Interval | None) -> str:
    if interval is None:
        return ""
    digits = 1 if interval.high < 1000 else 0
    return f" ({interval.low:,.{digits}f} to {interval.high:,.{digits}f})"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _section(folder: Path) -> str:
    """The committed card, with a link as the document sees it."""
    link = link_to_result("hardware.json", DOCUMENT)
    return render(read(folder / "hardware.json", Card, "hardware"), link)


SECTIONS = (Section(DOCUMENT, "hardware-card", _section),)
