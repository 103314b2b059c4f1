"""Regressions: caught when work doubles, not when it does not; and two results side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from bertd_bench.cli import bench
from bertd_bench.harness import intervals, results
from bertd_bench.harness.rounds import Schedule
from bertd_bench.load import document as load_document
from bertd_bench.load.results import GoodputReport, Ramp
from bertd_bench.regression import baseline, cases, document
from bertd_bench.regression.baseline import Baseline
from click.testing import CliRunner, Result
from helpers.paths import ROOT

RESULTS = ROOT / "benchmarks/results"
LANE = "16 mixed, a lane"


def rounds_of(rng: np.random.Generator, median: float, spread: float) -> list[list[float]]:
    return [list(median * rng.lognormal(0, spread, 5)) for _ in range(8)]


def test_a_change_is_sure_only_beyond_its_noise() -> None:
    """Twice the work is sure in quiet runs, and not in runs that are all noise."""
    rng = np.random.default_rng(0)
    for spread, sure in ((0.02, True), (1.5, False)):
        kernel, judged, slower = (rounds_of(rng, median, spread) for median in (1, 10, 20))
        change = intervals.change_interval((judged, kernel), (slower, kernel))
        assert change is not None
        assert 2 in change
        assert (change.low > 1.1) is sure
        same = intervals.change_interval((judged, kernel), (judged, kernel))
        assert same is not None
        assert 1 in same


def test_a_faster_machine_of_the_kind_is_no_change() -> None:
    """Kernel and case fall together."""
    kernel, judged = [[1.0, 1.1]] * 4, [[10.0, 10.5]] * 4
    halved = [[[sample / 2 for sample in each] for each in rounds] for rounds in (judged, kernel)]
    change = intervals.change_interval((judged, kernel), (halved[0], halved[1]))
    assert change is not None
    assert (change.low, change.high) == pytest.approx((1, 1))
    assert intervals.change_interval(([[1.0]], [[1.0]]), ([[1.0]], [[1.0]])) is None
    with pytest.raises(ValueError, match="4 rounds cannot be paired with 1"):
        intervals.change_interval((judged, [[1.0]]), (judged, kernel))


def twice(call: Callable[[], object]) -> Callable[[], object]:
    """An engine that does everything two times."""

    def both() -> None:
        call()
        call()

    return both


@pytest.mark.slow
def test_an_engine_that_works_twice_as_much_is_caught(tiny_bundle: Path) -> None:
    """And an equal one is not. A machine that is busy with others gets a second and third try."""
    schedule = Schedule(8, repeats=6, pause_seconds=0)
    for _ in range(3):
        before, equal = (cases.measure(tiny_bundle, 1, schedule, settle=False) for _ in "ab")
        slowed = cases.measure(tiny_bundle, 1, schedule, settle=False, wrap=twice)
        same = {each.name: each for each in baseline.changes(before, equal)}
        slow = {each.name: each for each in baseline.changes(before, slowed)}
        if slow[LANE].slower_than(1.1) and not same[LANE].slower_than(1.1):
            break
    assert slow[LANE].slower_than(1.1), slow
    assert not same[LANE].slower_than(1.1), same


def regress(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench, ["regress", *map(str, arguments), "--rounds", "2"])


@pytest.fixture(scope="module")
def written(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("regress") / "baseline.json"
    result = regress(tiny_bundle, "--baseline", path, "--update")
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.slow
def test_the_command_compares_with_its_baseline(tiny_bundle: Path, written: Path) -> None:
    """Two rounds prove nothing, so that nothing is slower; a bound of any size is kept."""
    result = regress(tiny_bundle, "--baseline", written, "--bound", "50")
    assert result.exit_code == 0, result.output
    assert LANE in result.output


@pytest.mark.slow
def test_the_command_fails_beyond_the_bound(
    tiny_bundle: Path, written: Path, tmp_path: Path
) -> None:
    """Against a baseline that was a hundred times as fast, after a second look."""
    found = json.loads(written.read_text(encoding="utf-8"))
    for case in found["cases"]:
        case["rounds_ns"] = [[sample // 100 + 1 for sample in each] for each in case["rounds_ns"]]
    path = tmp_path / "fast.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    result = regress(tiny_bundle, "--baseline", path)
    assert result.exit_code == 1, result.output
    assert "measuring once more" in result.output
    assert "slower by more than 10%, twice" in result.output
    assert LANE in result.output


@pytest.mark.slow
def test_where_nothing_can_be_said_the_command_says_so(
    tiny_bundle: Path, written: Path, tmp_path: Path
) -> None:
    """Exit 2: no baseline, a CPU of another kind, another model, another result."""
    result = regress(tiny_bundle, "--baseline", tmp_path / "none.json")
    assert result.exit_code == 2
    found = results.read(written, Baseline, "regress")
    changed = {
        "cpu": found.model_copy(
            update={"machine": found.machine.model_copy(update={"cpu": "another"})}
        ),
        "model": found.model_copy(update={"model": "another, fp32"}),
    }
    for what, other in changed.items():
        path = tmp_path / f"{what}.json"
        results.write(other, path)
        result = regress(tiny_bundle, "--baseline", path)
        assert result.exit_code == 2, result.output
        assert "another" in result.output
        assert "--update" in result.output
    result = regress(tiny_bundle, "--baseline", RESULTS / "compare.json")
    assert result.exit_code == 2
    assert "not a result of `bertd bench regress`" in result.output


def diff(*paths: Path) -> Result:
    return CliRunner().invoke(bench, ["diff", *map(str, paths)])


def test_two_cards_stand_side_by_side(card_file: Path, tmp_path: Path) -> None:
    """More is better for rates, less for costs."""
    found = json.loads(card_file.read_text(encoding="utf-8"))
    found["models"] = found["models"][:1]
    alone = tmp_path / "a.json"
    alone.write_text(json.dumps(found), encoding="utf-8")
    for way in found["models"][0]["ways"]:
        way["rounds"] = [2 * rate for rate in way["rounds"]]
    path = tmp_path / "b.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    result = diff(alone, path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    [best] = [line for line in lines if "best sequences/s" in line]
    assert best.endswith("| 2.00x | B better |")
    [cost] = [line for line in lines if "cost of a million" in line]
    assert cost.endswith("| 0.50x | B better |")
    assert sum(line.endswith("| even |") for line in lines) > 10


def test_two_cards_with_prices_say_which_machine_to_buy(card_file: Path, tmp_path: Path) -> None:
    """Twice as fast for three times the money is the worse buy."""
    found = json.loads(card_file.read_text(encoding="utf-8"))
    found["models"] = found["models"][:1]
    cheap, fast = tmp_path / "cheap.json", tmp_path / "fast.json"
    cheap.write_text(json.dumps(found), encoding="utf-8")
    found["price_per_hour"] *= 3
    for way in found["models"][0]["ways"]:
        way["rounds"] = [2 * rate for rate in way["rounds"]]
    fast.write_text(json.dumps(found), encoding="utf-8")
    first = diff(cheap, fast).output.splitlines()[0]
    assert re.fullmatch(
        r"For .* buy A: a million texts cost [\d.e-]+ there and [\d.e-]+ on B, 1\.50 times as "
        r"much, at 0\.50 times its texts a second\.",
        first,
    ), first


def test_two_runs_agree_where_their_intervals_do(tmp_path: Path) -> None:
    """A run with itself does; ratios of two thirds do not, and are named; exit 1."""
    report = load_report()
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    results.write(report, one)
    slower = [
        each.model_copy(update={"ramps": slowed(each.ramps)}) if each.own else each
        for each in report.entries
    ]
    results.write(report.model_copy(update={"entries": slower}), other)
    same = CliRunner().invoke(bench, ["agree", str(one), str(one)])
    assert same.exit_code == 0, same.output
    assert same.output.startswith("All 1 ratios agree within their 95 % intervals.")
    apart = CliRunner().invoke(bench, ["agree", str(one), str(other)])
    assert apart.exit_code == 1
    assert "1 of 1 ratios do not agree: all-MiniLM-L6-v2, bertd over mosec." in apart.output
    card = CliRunner().invoke(bench, ["agree", str(one), str(RESULTS / "hardware.json")])
    assert card.exit_code == 2
    assert "has no ratios" in card.output


def test_a_document_says_whether_repeats_agree(tmp_path: Path) -> None:
    """NAME-again is set beside NAME, and is no result of its own elsewhere."""
    assert "Not repeated" in document.agreement(tmp_path)
    results.write(load_report(), tmp_path / "load.json")
    results.write(load_report(), tmp_path / "load-again.json")
    results.write(load_report(), tmp_path / "load-base.json")
    said = document.agreement(tmp_path)
    assert re.findall(r"load[a-z-]*\.json(?=`)", said) == ["load.json", "load-again.json"]
    assert "All 1 ratios agree" in said
    assert [name for name, _ in load_document.committed(tmp_path)] == [
        "load.json",
        "load-base.json",
    ]


def load_report() -> GoodputReport:
    """Bertd and another, two rounds each."""
    committed = results.read(RESULTS / "load.json", GoodputReport, "load")
    [ours] = [each for each in committed.entries if each.name == "bertd"]
    rounds = [ours.ramps[0].model_copy(update={"round": number}) for number in range(2)]
    mine = ours.model_copy(update={"ramps": rounds})
    other = mine.model_copy(update={"name": "mosec", "ramps": slowed(rounds)})
    return committed.model_copy(update={"entries": [mine, other]})


def slowed(ramps: Sequence[Ramp]) -> list[Ramp]:
    """Two thirds of each rate."""
    return [
        ramp.model_copy(
            update={"steps": [s.model_copy(update={"rate": s.rate * 2 / 3}) for s in ramp.steps]}
        )
        for ramp in ramps
    ]


def test_results_of_one_kind_compare_and_others_do_not(written: Path, card_file: Path) -> None:
    assert diff(written, written).exit_code == 0
    result = diff(RESULTS / "exports-real.json", RESULTS / "exports-real.json")
    assert result.exit_code == 0, result.output
    assert diff(RESULTS / "compare.json", RESULTS / "compare.json").exit_code == 0
    result = diff(written, card_file)
    assert result.exit_code == 1
    assert "`regress`" in result.output
    assert "`hardware`" in result.output
    assert "give two results of one kind" in result.output
    result = diff(ROOT / "README.md", card_file)
    assert result.exit_code == 1
    assert "is no JSON" in result.output


def test_the_committed_baseline_is_one() -> None:
    """Where there is one: every case has a name that the command measures."""
    path = RESULTS / "baseline.json"
    if path.exists():
        found = results.read(path, Baseline, "regress")
        assert found.case(LANE) is not None
