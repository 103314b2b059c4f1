"""The load generator against systems whose delay is known, in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from bertd.v1 import inference_pb2
from bertd_bench.harness.texts import MIXED_LENGTHS
from bertd_bench.load import generator, traffic
from bertd_bench.load.generator import Closed, Open, RequestOutcome, SendResult, TimedRequest
from bertd_bench.load.protocols import BERTD
from helpers.small_tokenizer import small_tokenizer
from helpers.virtual import VirtualLoop, load, virtually

ANSWERED = SendResult(RequestOutcome.ANSWERED)


def percentiles(records: Sequence[TimedRequest]) -> tuple[float, ...]:
    """Seconds of the median, of the 99th, and of the slowest."""
    return tuple(np.percentile([record.latency for record in records], [50, 99, 100]).tolist())


def test_latency_of_a_system_of_constant_delay() -> None:
    """Each request takes 30 ms, however many come at once."""

    async def system(number: int, within: float) -> SendResult:
        assert number < 2000
        assert 0.9 < within <= 1
        await asyncio.sleep(0.03)
        return ANSWERED

    plan = generator.poisson(200, 5, [1.0], random.Random(0))
    records = virtually(load(plan, system))
    assert sorted(record.request for record in records) == list(range(len(plan.due)))
    assert percentiles(records) == pytest.approx((0.03, 0.03, 0.03), abs=2e-3)
    assert generator.rate(records, 1, 5) == pytest.approx(200, rel=0.1)


def test_percentiles_of_known_delays() -> None:
    """Every hundredth request takes 1 ms longer than the one before."""

    async def system(number: int, _: float) -> SendResult:
        await asyncio.sleep(number % 101 / 1000)
        return ANSWERED

    plan = Open(tuple(number / 10 for number in range(101)), (1.0,) * 101)
    records = virtually(load(plan, system))
    assert percentiles(records) == pytest.approx((0.05, 0.099, 0.1), abs=1e-4)


def test_a_stall_is_seen_by_all_that_were_due_in_it() -> None:
    """One at a time, 1 ms each, but the first takes a second: no coordinated omission.

    A generator that waits for each answer would see one slow request of 1,000.
    """
    turn = asyncio.Lock()

    async def system(number: int, _: float) -> SendResult:
        async with turn:
            await asyncio.sleep(0.001 if number else 1.0)
        return ANSWERED

    plan = Open(tuple(number / 500 for number in range(1000)), (9.0,) * 1000)
    records = virtually(load(plan, system))
    assert percentiles(records)[0] > 0.1
    assert sum(record.latency > 0.5 for record in records) > 200


def test_a_generator_that_falls_behind_counts_from_the_moment_that_was_due() -> None:
    """The system blocks the generator itself for a second."""

    async def system(number: int, _: float) -> SendResult:
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

    async def system(_: int, within: float) -> SendResult:
        assert within == math.inf
        async with lanes:
            await asyncio.sleep(0.01)
        return ANSWERED

    records = virtually(load(Closed(32, 3.0), system))
    assert generator.steady_rate(records, Closed(32, 3.0)) == pytest.approx(400, rel=0.01)


def test_a_batch_that_takes_as_long_as_the_load_is_no_rate_of_its_own() -> None:
    """All 32 wait for one batch of 0.9 s, whose answers come over 5 ms: not 6,400 a second."""

    async def system(number: int, _: float) -> SendResult:
        await asyncio.sleep(0.9 + number % 32 * 0.000_16)
        return ANSWERED

    load_ = Closed(32, 1.0)
    assert generator.steady_rate(virtually(load(load_, system)), load_) < 40


def test_goodput_leaves_out_refused_and_late_answers() -> None:
    """Of each three requests one is answered in time."""

    async def system(number: int, _: float) -> SendResult:
        if number % 3 == 1:
            return SendResult(RequestOutcome.REFUSED)
        await asyncio.sleep(0.9 if number % 3 else 0.1)
        return ANSWERED

    plan = Open(tuple(number / 30 for number in range(300)), (0.5,) * 300)
    assert generator.rate(virtually(load(plan, system)), 1, 9) == pytest.approx(10, rel=0.02)


def test_texts_differ_and_have_the_lengths_of_the_mixed_batch() -> None:
    """In every sixteen of them each length is there once, and calls carry them all."""
    tokenizer = small_tokenizer()
    built = traffic.build_texts(tokenizer, 1600, random.Random(0))
    assert len(set(built)) == 1600
    lengths = [len(tokenizer.encode(text)) for text in built[160:176]]
    assert sorted(lengths) == sorted(MIXED_LENGTHS)
    calls = [inference_pb2.EmbedRequest.FromString(BERTD.request(text)) for text in built]
    assert [text for call in calls for text in call.texts] == built
    assert all(call.HasField("prompt_name") for call in calls)
