"""The tables of docs/lab/load.md: who answers how many texts in time, and at what cost."""

from __future__ import annotations

import math
from pathlib import Path

from bertd_bench.compare.document import folded, shown
from bertd_bench.docs import Section, link_to_result
from bertd_bench.harness import results
from bertd_bench.load.outside import OutsideCheck
from bertd_bench.load.ramp import SHARE, Step
from bertd_bench.load.results import ContestantRamps, GoodputReport
from bertd_bench.load.servers import OURS

_PAGE = "docs/lab/load.md"
_PRECISIONS = ("fp32", "int8")


def committed(folder: Path) -> list[tuple[str, GoodputReport]]:
    """The results of a folder by their files' names, the standard one first.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is no such result.
    """
    paths = results.named(folder, "load*.json*")
    return [(path.name, results.read(path, GoodputReport, "load")) for path in paths]


def goodput(report: GoodputReport, link: str = "") -> str:
    """What is claimed, who takes how much, and what was seen of the machine."""
    objective = f"{report.objective * 1e3:.0f} ms"
    introduction = (
        f"{report.model}, {report.threads} threads each, {report.machine.cpu}. Single texts of "
        f"{report.mean_tokens:.0f} tokens on average at random moments; the client shares the "
        f"cores. The objective is {SHARE:.0%} of all requests within {objective} of the moment "
        "at which they were due. Rates are requests a second."
    )
    heads = {
        "": "---",
        f"highest rate with p99 ≤ {objective}": "---:",
        "bertd takes": "---",
        "bertd int8 takes": "---",
        "p50 at a tenth of it": "---:",
        "p50 there": "---:",
        "p99 there": "---:",
        "cores": "---:",
        "memory": "---:",
        "cold start": "---:",
        "rounds": "---",
    }
    best_first = sorted(report.entries, key=lambda each: -each.rate(report.objective))
    verdict = report.noise.verdict
    skipped = "\n".join(f"- {name}: {why}" for name, why in sorted(report.skipped.items()))
    parts = [
        introduction,
        verdict if report.noise.noisy else "",  # before any ratio
        "\n".join(verdicts(report)),
        "\n".join(
            [
                f"| {' | '.join(heads)} |",
                f"|{'|'.join(heads.values())}|",
                *(_row(report, each) for each in best_first),
            ]
        ),
        *folded("Servers and their settings", "\n".join(_about(each) for each in best_first)),
        *folded("Skipped", *([skipped] if skipped else [])),
        *([] if report.outside is None else [_outside(report.outside)]),
        "" if report.noise.noisy else verdict,
        f"`{report.command}`" + (f"; samples and versions: [`{link}`]({link})" if link else ""),
    ]
    return "\n\n".join(part for part in parts if part)


def verdicts(report: GoodputReport) -> list[str]:
    """A sentence for each of bertd's precisions: the best other server, and how far it is."""
    said = []
    for precision in _PRECISIONS:
        ours = report.entry(OURS if precision == "fp32" else f"{OURS} {precision}")
        for against in _PRECISIONS[: _PRECISIONS.index(precision) + 1]:
            best = report.best(against)
            ratio = best and ours and report.ratio(ours, best)
            if ours and best and ratio:
                said.append(
                    f"- {ours.name} takes {shown(ratio)} the rate of {best.name}, the best "
                    f"other server in {against}.{_light(ours, best)}"
                )
    return said


def _light(ours: ContestantRamps, best: ContestantRamps) -> str:
    mine, theirs = ours.light_seconds, best.light_seconds
    if mine is None or theirs is None:
        return ""
    return f" At a tenth of its rate its p50 is {mine / theirs:.2f} of that one's."


def _row(report: GoodputReport, each: ContestantRamps) -> str:
    objective = report.objective
    there = [step for step in each.steps() if step.meets(objective)]
    at = max(there, key=lambda step: step.rate, default=None)
    light, memory = each.light_seconds, each.memory_bytes
    cells = [
        f"**{each.name}**" if each.own else each.name,
        f"{each.rate(objective):.0f}",
        *(_ratio(report, name, each) for name in (OURS, f"{OURS} int8")),
        "" if light is None or math.isinf(light) else f"{light * 1e3:.1f} ms",
        _ms(at, 0.5),
        _ms(at, SHARE),
        f"{at.cores:.2f}" if at else "-",
        f"{max(memory) / 1e6:,.0f} MB" if memory else "",
        f"{each.cold_start_seconds:.1f} s" if each.cold_start_seconds else "",
        ", ".join(f"{rate:.0f}" for rate in each.rates(objective)),
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(report: GoodputReport, name: str, each: ContestantRamps) -> str:
    ours = report.entry(name)
    ratio = ours and report.ratio(ours, each)
    return "" if each.own or not ratio else shown(ratio)


def _ms(step: Step | None, share: float) -> str:
    seconds = math.inf if step is None else step.percentile(share)
    return "-" if math.isinf(seconds) else f"{seconds * 1e3:.1f} ms"


def _about(each: ContestantRamps) -> str:
    """Engine, versions, how near its vectors are, and what its sweep found."""
    near = f"cosine with eager {each.cosine:.5f}" if each.cosine < 1 else "eager's vectors"
    said = [each.what, each.versions, near, each.setting]
    text = f"- {each.name}: {'; '.join(part for part in said if part)}."
    if each.swept:
        tried = sorted(each.swept.items(), key=lambda pair: -pair[1])
        text += f" Swept: {', '.join(f'{name} {rate:.0f}' for name, rate in tried)}."
    return text


def _outside(check: OutsideCheck) -> str:
    theirs, ours = (
        f"p50 {_ms(each, 0.5)}, p99 {_ms(each, SHARE)} of {each.requests:,}"
        for each in (check.theirs, check.ours)
    )
    return (
        f"Another generator, {check.tool}, put {check.ours.rate:.0f} requests a second on "
        f"{check.server} too, evenly spaced: {theirs}; ours at random moments: {ours}."
    )


def _section(folder: Path) -> str:
    found = committed(folder)
    if not found:
        return "Not measured yet: `make comparison`."
    return "\n\n".join(goodput(each, link_to_result(name, _PAGE)) for name, each in found)


SECTIONS = (Section(_PAGE, "load", _section),)
