"""Ramps in virtual time against systems of known capacity, and a whole run on a tiny model."""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from bertd_bench.cli import bench
from bertd_bench.compare.process import PeerError
from bertd_bench.load import document, generator, http_client, processes, ramp, results
from bertd_bench.load.generator import RequestOutcome, SendResult
from bertd_bench.load.processes import EAGER, OURS, PLAIN
from click.testing import CliRunner
from helpers.virtual import load, virtually

LANES, SECONDS = 4, 0.01  # 400 requests a second
OBJECTIVE = 0.1


class Lanes:
    """Answers each request in 10 ms, four at a time, in the order in which they came."""

    def __init__(self) -> None:
        self.free = [0.0] * LANES

    async def __call__(self, _: int, within: float) -> SendResult:
        loop = asyncio.get_running_loop()
        end = max(loop.time(), heapq.heappop(self.free)) + SECONDS
        heapq.heappush(self.free, end)
        wait = end - loop.time()
        await asyncio.sleep(min(wait, within))
        return SendResult(RequestOutcome.ANSWERED if wait <= within else RequestOutcome.EXPIRED)


def probe(rate: float) -> ramp.Step:
    """Ten seconds of it, all at once."""
    plan = generator.poisson(rate, 10, [1.0], random.Random(0))
    return ramp.step_of(rate, 10, virtually(load(plan, Lanes())), cores=1.0)


@pytest.mark.parametrize("guess", [100.0, 400.0, 1600.0])
def test_a_ramp_ends_beyond_the_capacity_and_closes_in_on_the_last_rate_that_held(
    guess: float,
) -> None:
    """Whatever it set out from; queues of 100 ms build up a little below what the lanes can do."""
    plan = ramp.RampSchedule(OBJECTIVE, most=24)
    steps = ramp.climb(probe, guess, plan)
    held = ramp.held(steps, OBJECTIVE)
    assert 0.85 * LANES / SECONDS < held <= 1.02 * LANES / SECONDS
    missed = [step for step in steps if step.rate > held and not step.meets(OBJECTIVE)]
    assert min(step.rate for step in missed) <= held * (1 + plan.precision)
    best = max(step.goodput(OBJECTIVE) for step in steps)
    assert min(step.goodput(OBJECTIVE) for step in missed) < plan.falls * best
    assert len(steps) < plan.most


def test_a_system_that_never_meets_the_objective_holds_no_rate() -> None:
    steps = ramp.climb(probe, 400, ramp.RampSchedule(SECONDS / 2, most=5))
    assert len(steps) == 5
    assert ramp.held(steps, SECONDS / 2) == 0


def test_what_was_not_answered_took_for_ever() -> None:
    """Of 200 requests three got no answer: more than one in a hundred."""
    step = ramp.Step(
        rate=20,
        seconds=10,
        requests=200,
        latencies_us=[1000] * 197,
        outcomes={"answered": 197, "refused": 3},
        late_us=0,
        cores=1,
    )
    assert step.percentile(0.98) == 0.001
    assert math.isinf(step.percentile(0.99))
    assert not step.meets(60)
    assert step.goodput(60) == pytest.approx(19.7)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP server that embeds every text as three numbers; it refuses those with an x."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        [text] = json.loads(await reader.readexactly(length))["input"]
        vector = base64.b64encode(np.full(3, len(text), "<f4").tobytes()).decode()
        body = json.dumps({"data": [{"embedding": vector}]}).encode()
        status = "429 Too Many Requests" if "x" in text else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


async def test_the_client_of_http_reads_answers_and_refusals() -> None:
    """Over a real socket; connections are used again."""
    opened = []

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        try:
            await _serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(counted, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    texts = ("one", "three", "x")
    requests = tuple(http_client.embeddings_request(text, "model") for text in texts)
    async with http_client.sender(address, requests, keep=True) as send:
        replies = [await send(number, 60.0) for number in range(3)]
        outcomes = [RequestOutcome.ANSWERED] * 2 + [RequestOutcome.REFUSED]
        assert [reply.outcome for reply in replies] == outcomes
        assert http_client.embedding_of(replies[1].answer).tolist() == [5.0] * 3
        assert (await send(0, 0.0)).outcome is RequestOutcome.EXPIRED
        assert len(opened) == 1
        opened[0].close()  # as servers do with connections that are idle for long
        await opened[0].wait_closed()
        await asyncio.sleep(0.05)
        assert (await send(0, 60.0)).outcome is RequestOutcome.ANSWERED
        assert len(opened) == 2
    with pytest.raises(ValueError, match="no embedding"):
        http_client.embedding_of(b"{}")
    for writer in opened:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


def test_infinity_is_skipped_where_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"not installed: infinity_emb.*infinity-emb\[server\]"):
        processes.infinity_interpreter([sys.executable], tmp_path)


def test_contestants_climb_in_turns_and_become_a_table(tiny_bundle: Path, tmp_path: Path) -> None:
    """Bertd, eager behind its front end, and a plain server: figures mean nothing, but are there.

    All of them have proved that they give the same vectors.
    """
    target = tmp_path / "load.json"
    names = (OURS, f"{EAGER}, by length", PLAIN)
    arguments = ["load", "--model", str(tiny_bundle.parent / "checkpoint")]
    arguments += ["--threads", "1", "--seconds", "0.1", "--rounds", "2", "--steps", "1"]
    arguments += ["--set", "calibration_seconds=0.05", "--set", "warmup_seconds=0"]
    arguments += [part for name in names for part in ("--contestant", name)]
    done = CliRunner().invoke(bench, [*arguments, "--json", str(target)])
    assert done.exit_code == 0, done.output
    report = results.read(target, results.GoodputReport)
    assert [each.name for each in report.entries] == list(names), report.skipped
    for entry in report.entries:
        assert entry.difference < 1e-4
        assert [each.round for each in entry.ramps] == [0, 1]
        assert all(step.requests == sum(step.outcomes.values()) for step in entry.steps())
    assert document.goodput(report) in done.output
    assert "| highest rate with p99 ≤ 100 ms |" in done.output


def test_a_large_result_is_compressed_and_read_again(tmp_path: Path) -> None:
    step = ramp.Step(
        rate=1,
        seconds=1,
        requests=1,
        latencies_us=list(range(400_000)),
        outcomes={},
        late_us=0,
        cores=0,
    )
    path = results.write(step, tmp_path / "load.json")
    assert path.name == "load.json.gz"
    assert results.read(path, ramp.Step) == step
    with pytest.raises(ValueError, match="is not a GoodputReport"):
        results.read(path, results.GoodputReport)
