"""The page as one file: words, drawings and style, nothing to fetch and nothing to run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from bertd_bench.harness.machine import Machine
from bertd_bench.report import comparison, drawing, load
from bertd_bench.report.chart import DARK, LIGHT, Chart, Missing, variables
from bertd_bench.report.sources import Results

_STYLE = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 1180px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.1rem; margin: 0 0 8px; }
.charts { display: grid; gap: 32px 40px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
figure, section { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 540px; }
figcaption, .about { color: var(--muted); font-size: .9rem; }
.scroll { overflow-x: auto; background: linear-gradient(to right, var(--ground) 40%, transparent)
  left, linear-gradient(to left, var(--ground) 40%, transparent) right,
  linear-gradient(to right, var(--muted), transparent) left,
  linear-gradient(to left, var(--muted), transparent) right; background-repeat: no-repeat;
  background-size: 32px 100%, 32px 100%, 12px 100%, 12px 100%;
  background-attachment: local, local, scroll, scroll; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--series-1); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: start; }
th, td { border-bottom: 1px solid var(--grid); padding: 4px 10px 4px 0; text-align: end;
  white-space: nowrap; }
th:first-child { text-align: start; } code { overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 8px 0; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def charts(results: Results) -> list[Chart | Missing]:
    """Everything that a report shows, in its order."""
    return [
        *comparison.of([each for _, each in results.comparisons]),
        *load.of([each for _, each in results.loads]),
    ]


def html(results: Results, shown: Sequence[Chart | Missing]) -> str:
    """The page.

    Args:
        results: for the words about where they come from.
        shown: what :func:`charts` gave.
    """
    look = _STYLE.replace("LIGHT", variables(LIGHT)).replace("DARK", variables(DARK))
    drawn = "\n".join(_figure(each) for each in shown if isinstance(each, Chart))
    missing = [each for each in shown if isinstance(each, Missing)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>bertd: measured</title>
<style>{look}</style>
</head>
<body>
<main>
<h1>bertd: measured</h1>
{_about(results)}
<div class="charts">
{drawn}
</div>
{_missing(missing, results)}
</main>
</body>
</html>
"""


def _figure(chart: Chart) -> str:
    opened = " open" if chart.open else ""
    return f"""<figure id="{chart.key}" data-digest="{chart.digest}">
<h2>{escape(chart.title)}</h2>
{drawing.svg(chart)}
<figcaption>{escape(chart.says)}</figcaption>
<details{opened}><summary>The numbers</summary>
<div class="scroll" tabindex="0" role="region" aria-label="{escape(chart.title)}, as a table">
{_table(chart)}
</div></details>
</figure>"""


def _table(chart: Chart) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in chart.heads)
    rows = "\n".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in chart.rows
    )
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>"


def _cell(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))


def _about(results: Results) -> str:
    lines = []
    for name, found in results.comparisons:
        lines.append(_source(name, found.command, found.machine))
        if found.note:
            lines.append(escape(found.note))
        count = len(found.noisy)
        if count:
            lines.append(f"The machine was noisy in {count} of its cases.")
    for name, ramps in results.loads:
        lines += [_source(name, ramps.command, ramps.machine), escape(ramps.noise.verdict)]
    items = "\n".join(f"<li>{line}</li>" for line in lines)
    return (
        '<details class="about"><summary>Where these numbers come from</summary>\n'
        f"<ul>{items}</ul></details>"
    )


def _source(name: str, command: str, machine: Machine) -> str:
    return (
        f"<code>{escape(name)}</code>: <code>{escape(command)}</code>, {escape(machine.cpu)}, "
        f"{machine.usable_threads} threads, load {machine.load_average[0]:.2f} before the run"
    )


def _missing(missing: Sequence[Missing], results: Results) -> str:
    said = [
        f"<li>{escape(each.title)}: <code>{escape(each.remedy)}</code></li>" for each in missing
    ]
    said += [
        f"<li><code>{escape(name)}</code> is not shown: {escape(why)}</li>"
        for name, why in results.unread.items()
    ]
    if not said:
        return ""
    return f"<section><h2>Not measured yet</h2><ul>{''.join(said)}</ul></section>"
