"""LoadGen over systems of known delay, its real logs, and bertd under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from bertd_bench.cli import bench
from bertd_bench.mlperf import document, loadgen, logs, results, run
from bertd_bench.mlperf.loadgen import RefusedError
from bertd_bench.mlperf.results import TriedRate
from bertd_bench.mlperf.settings import Expected, LoadGenRun, Scenario
from click.testing import CliRunner

LIBRARY = 32


class Delayed:
    """Answers with the number of the sample, after a while; refuses the first call."""

    texts_per_call = 8

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.refused = False

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        if not self.refused:
            self.refused = True
            raise RefusedError
        await asyncio.sleep(self.seconds)
        return [bytes([sample]) * 4 for sample in samples]


def a_run(scenario: Scenario, *, accuracy_: bool = False, limit: float = 10.0) -> LoadGenRun:
    return LoadGenRun(
        scenario=scenario,
        accuracy=accuracy_,
        seconds=0.3,
        queries=8,
        samples=LIBRARY,
        limit=limit,
        rate=2000.0,
        expected=Expected(single=0.001, multi=0.001, offline=40_000.0),
    )


def ran(run: LoadGenRun, folder: Path, seconds: float = 0.002) -> int:
    return asyncio.run(loadgen.execute(Delayed(seconds), run, LIBRARY, folder))


@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_a_valid_run_is_read_from_real_logs(scenario: Scenario, tmp_path: Path) -> None:
    """Percentiles are no less than the delay, and a refused call was made again."""
    assert ran(a_run(scenario), tmp_path) == 1
    seen = logs.read_performance(tmp_path)
    assert (seen.scenario, seen.verdict, seen.valid) == (scenario, "VALID", True)
    assert seen.percentiles["50.00"] >= 2_000_000
    assert seen.rate > 0
    assert seen.values["effective_min_query_count"] == 8
    assert "Result is : VALID" in seen.summary


@pytest.mark.parametrize("scenario", ["MultiStream", "Server"])
def test_an_invalid_run_says_why(scenario: Scenario, tmp_path: Path) -> None:
    """Too few queries for the percentile of MultiStream; a limit below Server's delay."""
    ran(a_run(scenario, limit=0.001), tmp_path)
    seen = logs.read_performance(tmp_path)
    assert not seen.valid
    assert seen.reason or seen.early_stopping
    assert "Result is : INVALID" in seen.summary


def test_every_answer_of_an_accuracy_run_is_in_the_log(tmp_path: Path) -> None:
    """A wrong one is found, and so is one that is missing."""
    ran(a_run("Offline", accuracy_=True), tmp_path)
    answers = logs.read_answers(tmp_path)
    reference = [bytes([sample]) * 4 for sample in range(LIBRARY)]
    nobody = np.empty((0, 1), np.float32)
    assert results.check(answers, reference, LIBRARY, nobody).passed
    assert not results.check(answers, [b"?", *reference[1:]], LIBRARY, nobody).passed
    del answers[3]
    assert not results.check(answers, reference, LIBRARY, nobody).passed


def test_vectors_may_be_as_far_from_eager_as_the_tolerance_says() -> None:
    """Whatever their length; a vector of another shape is far away."""
    vectors = np.eye(4, dtype=np.float32)
    answers = {row: (2 * vectors[row]).tobytes() for row in range(4)}
    reference = [answers[row] for row in range(4)]
    assert results.check(answers, reference, 4, vectors).difference == 0
    shifted = results.check(answers, reference, 4, np.roll(vectors, 1, axis=0))
    assert not shifted.passed
    assert not results.check(answers, reference, 4, vectors[:, :3]).passed


def test_logs_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(logs.LogError, match="cannot be read"):
        logs.read_performance(tmp_path)
    (tmp_path / "mlperf_log_detail.txt").write_text(':::MLLOG {"key": "a", "value": 1}\n')
    (tmp_path / "mlperf_log_summary.txt").write_text("")
    (tmp_path / "mlperf_log_accuracy.json").write_text('[{"qsl_idx": 0}]')
    with pytest.raises(logs.LogError, match="result_validity"):
        logs.read_performance(tmp_path)
    with pytest.raises(logs.LogError, match="not LoadGen's log of answers"):
        logs.read_answers(tmp_path)


def searched(
    valid: Callable[[float], bool], start: float, precision: float, most: int
) -> list[TriedRate]:
    tried: list[TriedRate] = []
    while len(tried) < most:
        rate = run.next_rate(tried, start, precision)
        if rate is None:
            break
        tried.append(TriedRate(rate=rate, valid=valid(rate)))
    return tried


@pytest.mark.parametrize("start", [20.0, 95.0, 700.0])
def test_the_search_finds_the_highest_valid_rate(start: float) -> None:
    tried = searched(lambda rate: rate <= 100, start, precision=0.03, most=40)
    low, high = run.bounds(tried)
    assert low <= 100 < high <= low * 1.03


def test_a_search_without_a_valid_rate_ends() -> None:
    tried = searched(lambda _: False, 100, precision=0.1, most=6)
    assert len(tried) == 6
    assert run.bounds(tried)[0] == 0
    assert tried[-1].rate < 50


@pytest.mark.slow
def test_bertd_answers_every_scenario(tiny_bundle: Path, tmp_path: Path) -> None:
    """Every answer bit for bit the engine's, and near eager's; runs so short may be invalid."""
    target, kept = tmp_path / "mlperf.json", tmp_path / "logs"
    arguments = ["--model", str(tiny_bundle.parent / "checkpoint"), "--preset", "check"]
    arguments += ["--threads", "1", "--json", str(target), "--logs", str(kept)]
    done = CliRunner().invoke(bench, ["mlperf", *arguments])
    assert target.exists(), done.output
    report = results.MlperfReport.model_validate_json(target.read_bytes())
    assert document.render(report) in done.output
    assert (done.exit_code == 0) == (not report.failed)
    assert len(report.scenarios) == 4
    for each in report.scenarios:
        assert each.accuracy.passed
        assert each.performance.verdict in {"VALID", "INVALID"}
        assert each.performance.scenario == each.name
        assert bool(each.search) == (each.name == "Server")
    assert not report.official
    assert any(kept.rglob("mlperf_log_detail.txt"))
