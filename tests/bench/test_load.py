"""The load generator against systems whose delay is known, in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import pytest
from bertd.v1 import inference_pb2
from bertd_bench.cli import bench
from bertd_bench.harness.texts import MIXED_LENGTHS
from bertd_bench.load import document, generator, malformed, mix, serve_results
from bertd_bench.load.generator import Closed, Open, Outcome, Reply
from bertd_bench.load.wellformed import Target, methods
from click.testing import CliRunner
from helpers.paths import ROOT
from helpers.small_tokenizer import small_tokenizer
from helpers.virtual import VirtualLoop, load, virtually

ANSWERED = Reply(Outcome.ANSWERED)


def test_latency_of_a_system_of_constant_delay() -> None:
    """Each request takes 30 ms, however many come at once."""

    async def system(number: int, within: float) -> Reply:
        assert number < 2000
        assert 0.9 < within <= 1
        await asyncio.sleep(0.03)
        return ANSWERED

    plan = generator.poisson(200, 5, [1.0], random.Random(0))
    records = virtually(load(plan, system))
    assert sorted(record.request for record in records) == list(range(len(plan.due)))
    seen = serve_results.latency([record.latency for record in records])
    assert (seen.p50, seen.p99, seen.most) == pytest.approx((0.03, 0.03, 0.03), abs=2e-3)
    assert generator.rate(records, 1, 5) == pytest.approx(200, rel=0.1)


def test_percentiles_of_known_delays() -> None:
    """Every hundredth request takes 1 ms longer than the one before."""

    async def system(number: int, _: float) -> Reply:
        await asyncio.sleep(number % 101 / 1000)
        return ANSWERED

    plan = Open(tuple(number / 10 for number in range(101)), (1.0,) * 101)
    seen = serve_results.latency([record.latency for record in virtually(load(plan, system))])
    assert (seen.p50, seen.p99, seen.most) == pytest.approx((0.05, 0.099, 0.1), abs=1e-4)


def test_a_stall_is_seen_by_all_that_were_due_in_it() -> None:
    """One at a time, 1 ms each, but the first takes a second: no coordinated omission.

    A generator that waits for each answer would see one slow request of 1,000.
    """
    turn = asyncio.Lock()

    async def system(number: int, _: float) -> Reply:
        async with turn:
            await asyncio.sleep(0.001 if number else 1.0)
        return ANSWERED

    plan = Open(tuple(number / 500 for number in range(1000)), (9.0,) * 1000)
    latencies = [record.latency for record in virtually(load(plan, system))]
    assert serve_results.latency(latencies).p50 > 0.1
    assert sum(latency > 0.5 for latency in latencies) > 200


def test_a_generator_that_falls_behind_counts_from_the_moment_that_was_due() -> None:
    """The system blocks the generator itself for a second."""

    async def system(number: int, _: float) -> Reply:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.virtual.now += 0.0 if number else 1.0
        return ANSWERED

    plan = Open((0.1, 0.2, 0.3), (0.5, 0.5, 5.0))
    records = sorted(virtually(load(plan, system)))
    assert [record.latency for record in records] == pytest.approx([1.0, 0.9, 0.8], abs=1e-3)
    assert records[1].sent - records[1].due == pytest.approx(0.9, abs=1e-3)
    assert [record.good for record in records] == [False, False, True]


def test_a_closed_loop_finds_the_capacity() -> None:
    """Four at a time, 10 ms each: 400 a second, however many workers ask beyond four."""
    lanes = asyncio.Semaphore(4)

    async def system(_: int, within: float) -> Reply:
        assert within == math.inf
        async with lanes:
            await asyncio.sleep(0.01)
        return ANSWERED

    records = virtually(load(Closed(32, 3.0), system))
    assert generator.steady_rate(records, Closed(32, 3.0)) == pytest.approx(400, rel=0.01)


def test_a_batch_that_takes_as_long_as_the_load_is_no_rate_of_its_own() -> None:
    """All 32 wait for one batch of 0.9 s, whose answers come over 5 ms: not 6,400 a second."""

    async def system(number: int, _: float) -> Reply:
        await asyncio.sleep(0.9 + number % 32 * 0.000_16)
        return ANSWERED

    load_ = Closed(32, 1.0)
    assert generator.steady_rate(virtually(load(load_, system)), load_) < 40


def test_goodput_leaves_out_refused_and_late_answers() -> None:
    """Of each three requests one is answered in time."""

    async def system(number: int, _: float) -> Reply:
        if number % 3 == 1:
            return Reply(Outcome.REFUSED)
        await asyncio.sleep(0.9 if number % 3 else 0.1)
        return ANSWERED

    plan = Open(tuple(number / 30 for number in range(300)), (0.5,) * 300)
    assert generator.rate(virtually(load(plan, system)), 1, 9) == pytest.approx(10, rel=0.02)


def test_texts_differ_and_have_the_lengths_of_the_mixed_batch() -> None:
    """In every sixteen of them each length is there once, and calls carry them all."""
    tokenizer = small_tokenizer()
    built = mix.build_texts(tokenizer, 1600, random.Random(0))
    assert len(set(built)) == 1600
    lengths = [len(tokenizer.encode(text)) for text in built[160:176]]
    assert sorted(lengths) == sorted(MIXED_LENGTHS)
    calls = [inference_pb2.EmbedRequest.FromString(call) for call in mix.serialize(built, 8)]
    assert [text for call in calls for text in call.texts] == built
    assert all(call.HasField("prompt_name") for call in calls)


def test_a_server_is_loaded_and_the_results_become_tables(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """Every measurement, a quarter of a second each: figures mean nothing, but all are there."""
    target = tmp_path / "load.json"
    arguments = ["serve-load", str(tiny_bundle), "--seconds", "0.25", "--rounds", "1"]
    result = CliRunner().invoke(bench, [*arguments, "--json", str(target)])
    assert result.exit_code == 0, result.output
    report = serve_results.LoadReport.model_validate_json(target.read_bytes())
    assert {row.texts_per_call for row in report.throughput} == {1, 8, 32}
    assert all(row.texts_per_second > 0 for row in report.throughput)
    assert report.counts["answered"] > 0
    assert set(report.light.stages) == {"tokenising", "queue", "compute", "transport and client"}
    assert "| p50 at 10 % load, above the bare engine |" in result.output


def test_a_soak_counts_what_it_saw(tiny_bundle: Path) -> None:
    """Three seconds: every kind of call had a status that it allows, every text its bits."""
    result = CliRunner().invoke(bench, ["soak", str(tiny_bundle), "--minutes", "0.05"])
    assert "plain OK" in result.output
    assert "wrong:" not in result.output


def test_malformed_requests_have_statuses_that_are_right_for_them(tiny_bundle: Path) -> None:
    """A few hundred; their memory means nothing, since so few do not warm a server up."""
    quick = ["--set", "warmup_seconds=0", "--set", "calibration_seconds=0.05"]
    arguments = ["malformed", str(tiny_bundle), "--requests", "400", *quick]
    result = CliRunner().invoke(bench, arguments)
    assert "9  good requests in between" in result.output
    assert "random bytes: INVALID_ARGUMENT" in result.output
    assert "unknown RPC: UNIMPLEMENTED" in result.output
    assert "wrong:" not in result.output


def test_a_seed_gives_the_same_malformed_requests_again() -> None:
    """And nearly every RPC meets some of them."""
    target = Target("tiny", "feature-extraction", "", 320)
    first, again = (malformed.Attacks(methods(), target, 3) for _ in range(2))
    attacks = [first[number] for number in range(500)]
    assert attacks == [again[number] for number in range(500)]
    assert len({attack.path for attack in attacks} & {one.path for one in methods()}) > 45


def test_the_document_says_what_the_committed_results_say() -> None:
    """Nobody has edited a figure by hand."""
    root = ROOT
    text = (root / "docs/lab/load.md").read_text(encoding="utf-8")
    assert document.rewrite(text, root / "benchmarks/results") == text
