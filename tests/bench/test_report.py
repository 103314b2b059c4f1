"""The report: made of the committed results, and looked at in Chromium as a reader would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bertd_bench.cli import bench
from bertd_bench.hardware.card import Card
from bertd_bench.harness import results
from bertd_bench.load.ramp import Step
from bertd_bench.load.results import ContestantRamps, GoodputReport, Ramp
from bertd_bench.report import document, drawing, page, sources
from bertd_bench.report.chart import DARK, LIGHT, Chart, Missing
from click.testing import CliRunner
from helpers.paths import ROOT
from helpers.patience import PATIENCE

RESULTS = ROOT / "benchmarks/results"
REPORT = RESULTS / document.FOLDER / "index.html"
REMEDY = "run `make report`"
KINDS = ("speedup", "load", "mixed")
PHONE, DESK = 390, 1280


def loaded(card_file: Path) -> GoodputReport:
    """A load of two servers, one of which leaves requests unanswered at the highest rate."""
    card = results.read(card_file, Card, "hardware")

    def step(rate: int, slower: float) -> Step:
        answered = rate if rate < 300 else int(rate * 0.9)
        return Step(
            rate=rate,
            seconds=1,
            requests=rate,
            latencies_us=[int(slower * (10_000 + 100 * number)) for number in range(answered)],
            outcomes={"answered": answered},
            late_us=100,
            cores=1.5,
        )

    return GoodputReport(
        command="bertd bench load",
        model="all-MiniLM-L6-v2",
        threads=2,
        mean_tokens=24,
        objective=0.1,
        seconds=1,
        machine=card.machine,
        noise=card.noise,
        entries=[
            ContestantRamps(
                name=name,
                what="a server",
                difference=0,
                ramps=[
                    Ramp(round=0, capacity=300, steps=[step(r, slower) for r in (50, 100, 300)])
                ],
            )
            for name, slower in (("bertd", 1.0), ("eager, same front end", 4.0))
        ],
        skipped={},
    )


def committed() -> sources.Results:
    return sources.read(sources.files(RESULTS))


@pytest.fixture(scope="module")
def made(card_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of every kind of chart: the committed results, a card, and a load."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "load.json").write_text(loaded(card_file).model_dump_json(), encoding="utf-8")
    paths = [RESULTS / "compare.json", card_file, folder / "load.json"]
    output = folder / "page" / "report.html"
    arguments = ["report", *map(str, paths), "--output", str(output)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    assert "0 not measured yet" in result.output
    return output


def test_the_page_stands_alone(made: Path) -> None:
    """It names nothing to fetch and runs nothing; every chart has words and a table."""
    text = made.read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link(?! rel=\"icon\")|@import|src=", text)
    addresses = set(re.findall(r"https?://[^\"' <]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    figures = text.split("<figure")[1:]
    for kind in KINDS:
        assert any(f' id="{kind}' in each[:40] for each in figures), kind
    for each in figures:
        assert each.count('role="img"') == 1
        assert "<title id=" in each
        assert "<desc id=" in each
        assert "<th scope=" in each


def look(page: Path, folder: Path, scheme: str) -> dict[str, Any]:
    """What Chromium sees of a page on a phone and on a desk."""
    pytest.importorskip(
        "PySide6.QtWebEngineCore",
        reason="Chromium is not installed, or lacks a library of the system: "
        "pip install '.[browser]'",
        exc_type=ImportError,
    )
    program = ROOT / "tests" / "helpers" / "browser.py"
    arguments = [str(page), str(folder), scheme, str(PHONE), str(DESK)]
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_chromium_shows_it(made: Path, tmp_path: Path, scheme: str, colours: Any) -> None:
    """No overflow, no message, no request but the page; every chart drawn, in its scheme."""
    seen = look(made, tmp_path, scheme)
    assert seen["console"] == []
    assert set(seen["requests"]) <= {made.as_uri(), "data:,"}
    for width, view in zip((PHONE, DESK), seen["looks"], strict=True):
        assert view["width"] == width
        assert view["scroll"] <= width
        assert view["wide"] == []
        assert len(view["ids"]) == len(set(view["ids"]))
        assert view["ground"] == rgb(colours.ground)
        assert view["ink"] == rgb(colours.ink)
        assert {each["key"].split("-")[0] for each in view["charts"]} == set(KINDS)
        for chart in view["charts"]:
            left, top, right, bottom = chart["box"]
            assert right - left > 0.7 * min(width, 500), chart["key"]
            assert bottom - top > 60
            assert right <= width
            assert chart["marks"] > 10
            assert chart["rows"] > 0
            assert len(chart["says"]) > 40
            for text, *box, fill in chart["texts"]:
                assert fill == rgb(colours.ink), text
                inside = (left <= box[0] + 1, top <= box[1] + 1)
                assert all((*inside, box[2] <= right + 1, box[3] <= bottom + 1)), text
        assert (tmp_path / f"{scheme}-{width}.png").stat().st_size > 5000


def rgb(colour: str) -> str:
    """As a browser says it."""
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """No result is needed: each missing chart names its command, each odd file its fault."""
    (tmp_path / "load.json").write_text('{"benchmark": "load", "rates": []}', encoding="utf-8")
    (tmp_path / "other.json").write_text('{"benchmark": "simulate"}', encoding="utf-8")
    found = sources.read(tmp_path.glob("*.json"))
    assert list(found.unread) == ["load.json"]
    shown = page.charts(found)
    assert all(isinstance(each, Missing) for each in shown)
    text = page.html(found, shown)
    for command in ("compare", "load"):
        assert f"bertd bench {command} " in text
    assert "its command is not as this version writes it" in text
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json is no JSON"):
        sources.read(tmp_path.glob("*.json"))


def digest_of(picture: Path) -> str | None:
    """The digest that a picture carries; None if it carries none."""
    found = re.search(
        rb"tEXt" + drawing.DIGEST.encode() + rb"\0([0-9a-f]{64})", picture.read_bytes()
    )
    return found.group(1).decode() if found else None


def test_the_committed_report_is_of_the_committed_results() -> None:
    """Page and pictures say what the results say; of README see test_docs.py."""
    shown = page.charts(committed())
    text = REPORT.read_text(encoding="utf-8")
    digests = [each.digest for each in shown if isinstance(each, Chart)]
    assert re.findall(r'data-digest="(\w+)"', text) == digests, REMEDY
    for chart in document.shown(shown):
        for scheme in drawing.SCHEMES:
            picture = REPORT.parent / f"{chart.key}-{scheme}.png"
            assert digest_of(picture) == chart.digest, REMEDY
