"""Ramps in virtual time against systems of known capacity, and a whole run on a tiny model."""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from bertd.oip import grpc_service_pb2 as oip
from bertd.v1 import inference_pb2
from bertd_bench.cli import bench
from bertd_bench.compare.process import PeerError
from bertd_bench.harness.noise import Noise
from bertd_bench.harness.results import read
from bertd_bench.load import document, generator, outside, protocols, ramp, results, served, servers
from bertd_bench.load.generator import RequestOutcome, SendResult
from bertd_bench.load.servers import OURS
from click.testing import CliRunner
from helpers.paths import ROOT
from helpers.patience import PATIENCE
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


@pytest.mark.parametrize(
    "guess", [100.0, *(pytest.param(g, marks=pytest.mark.slow) for g in (400.0, 1600.0))]
)
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
    """It has all the steps that it may have, or as many as rates can be measured."""
    steps = ramp.climb(probe, 400, ramp.RampSchedule(SECONDS / 2, most=5))
    assert len(steps) == 5
    assert ramp.held(steps, SECONDS / 2) == 0
    steps = ramp.climb(probe, 400, ramp.RampSchedule(SECONDS / 2))
    assert len(steps) < 16
    assert steps[-1].requests < 20 <= steps[-2].requests
    assert ramp.held(steps, SECONDS / 2) == 0


def test_a_single_answer_in_time_holds_no_rate() -> None:
    """One request in 30 s, answered at once, says nothing of 99 in 100."""
    lucky = ramp.Step(
        rate=0.03,
        seconds=30,
        requests=1,
        latencies_us=[1000],
        outcomes={"answered": 1},
        late_us=0,
        cores=1,
    )
    assert lucky.percentile(0.99) == 0.001
    assert not lucky.meets(60)
    assert ramp.held([lucky], 60) == 0


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


def climbed(name: str, rates: Sequence[float], precision: str = "fp32") -> results.ContestantRamps:
    """A server that took these rates, round by round, and a tenth of each in 5 ms."""

    def step(rate: float, microseconds: int) -> ramp.Step:
        return ramp.Step(
            rate=rate,
            seconds=1,
            requests=100,
            latencies_us=[microseconds] * 100,
            outcomes={"answered": 100},
            late_us=0,
            cores=1,
        )

    ramps = [
        results.Ramp(
            round=number, capacity=rate, steps=[step(rate, 50_000)], light=step(rate / 10, 5_000)
        )
        for number, rate in enumerate(rates)
    ]
    return results.ContestantRamps(
        name=name,
        what="a server",
        precision=precision,
        versions=f"{name} 1.0",
        setting="batches of up to 4, 1 worker",
        swept={"batches of up to 4, 1 worker": 90.0, "batches of up to 1, 2 workers": 80.0},
        difference=0,
        cold_start_seconds=2.5,
        memory_bytes=[300_000_000],
        ramps=ramps,
    )


def report(*entries: results.ContestantRamps) -> results.GoodputReport:
    return results.GoodputReport(
        command="bertd bench load",
        model="all-MiniLM-L6-v2",
        threads=2,
        mean_tokens=24,
        objective=OBJECTIVE,
        seconds=1,
        machine=read(ROOT / "benchmarks/results/load.json", results.GoodputReport, "load").machine,
        noise=Noise(load=0, steal=0, others=0, calibration_ns=[[1]], spread=0, dropped=2),
        entries=list(entries),
        skipped={"vLLM": "not installed: `make peers PEERS=vllm`"},
    )


def test_the_claim_comes_first_and_names_the_best_other_server() -> None:
    """Of each precision; what was swept, skipped and dropped is said."""
    ours, int8 = climbed(OURS, [300, 310, 305]), climbed(f"{OURS} int8", [600, 620, 610], "int8")
    said = document.goodput(
        report(ours, int8, climbed("mosec", [100] * 3), climbed("Triton", [120] * 3))
    )
    assert "- bertd takes 2.54x (2.50 to 2.58) the rate of Triton, the best other" in said
    assert "- bertd int8 takes 5.08x (5.00 to 5.17) the rate of Triton" in said
    assert said.index("the rate of Triton") < said.index("| mosec |")
    assert "| 5.0 ms | 50.0 ms |" in said
    assert "| 300 MB | 2.5 s |" in said
    assert "mosec 1.0; eager's vectors; batches of up to 4, 1 worker. Swept: batches of" in said
    assert "- vLLM: not installed: `make peers PEERS=vllm`" in said
    assert "2 disturbed turns were dropped" in said


def test_every_protocol_carries_a_text_out_and_a_vector_back() -> None:
    vector = np.array([0.5, -1, 3], np.float32)
    embedded = inference_pb2.EmbedResponse(
        results=[inference_pb2.EmbedResult(embedding=vector.tobytes())]
    )
    raw = oip.ModelInferResponse(raw_output_contents=[vector.tobytes()])
    typed = oip.ModelInferResponse()
    typed.outputs.add(name="embedding").contents.fp32_contents.extend(vector)
    coded = base64.b64encode(vector.tobytes()).decode()
    openai, plain = protocols.openai("/v1/embeddings"), protocols.plain("/predict")
    assert json.loads(openai.request("Stoß"))["input"] == "Stoß"
    assert json.loads(plain.request("Stoß")) == {"input": "Stoß"}
    asked = oip.ModelInferRequest.FromString(protocols.V2.request("Stoß"))
    assert asked.inputs[0].contents.bytes_contents == ["Stoß".encode()]
    for protocol, answer in (
        (protocols.BERTD, embedded.SerializeToString()),
        (protocols.V2, raw.SerializeToString()),
        (protocols.V2, typed.SerializeToString()),
        (openai, json.dumps({"data": [{"embedding": coded}]}).encode()),
        (openai, json.dumps({"data": [{"embedding": vector.tolist()}]}).encode()),
        (plain, json.dumps({"embedding": vector.tolist()}).encode()),
    ):
        np.testing.assert_array_equal(protocol.vector(answer), vector)


def test_another_generators_answers_count_when_their_bytes_came() -> None:
    """gRPC's errors have HTTP 200 and no message; one of three here is one."""
    log = "1\t200\t900\n2\t200\t100\n3\t200\t200\n4\t503\t50\n"
    told = "traffic: 400B (400) total, 120B (120) headers (space savings 1%), 210B (210) data"
    assert outside.read_log(log, told, 105) == [100, 200]


TREE = """
import subprocess, sys, time
child = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """Return once none of them runs."""
    end = time.monotonic() + PATIENCE
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_processes_of_a_server_are_stopped_out_of_turn_and_ended(tmp_path: Path) -> None:
    """Those in sessions of their own too."""
    kind = replace(servers.SERVERS[OURS], command=lambda _: [sys.executable, "-c", TREE])
    given = servers.ServerInputs(tmp_path, tmp_path, None, 1, 1, tmp_path, tmp_path, None)
    server = served.start(kind, given)
    try:
        server.wait_for(lambda: "" if "ready" in server.log.read_text() else "not yet")
        first = psutil.Process(server.process.pid)
        every = [first, *first.children(recursive=True)]
        assert len(every) == 2
        with server.awake():
            assert server.memory_bytes() > 1e6
        end = time.monotonic() + PATIENCE
        while {each.status() for each in every} != {psutil.STATUS_STOPPED}:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        server.close()
    wait_until_ended(every)


ORPHAN = """
import subprocess, sys, time
worker = "import time; time.sleep(600)"
middle = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {worker!r}]).pid)"
subprocess.run([sys.executable, "-c", middle])
time.sleep(600)
"""


def test_a_process_whose_parent_has_gone_is_ended_with_its_server(tmp_path: Path) -> None:
    kind = replace(servers.SERVERS[OURS], command=lambda _: [sys.executable, "-c", ORPHAN])
    given = servers.ServerInputs(tmp_path, tmp_path, None, 1, 1, tmp_path, tmp_path, None)
    server = served.start(kind, given)
    try:
        server.wait_for(lambda: "" if server.log.read_text().endswith("\n") else "not yet")
        orphan = psutil.Process(int(server.log.read_text()))
        assert orphan.ppid() != server.process.pid
    finally:
        server.close()
    wait_until_ended([orphan])


def test_a_server_that_ends_says_what_it_said(tmp_path: Path) -> None:
    said = [sys.executable, "-c", "raise SystemExit('no such model')"]
    kind = replace(servers.SERVERS[OURS], command=lambda _: said)
    given = servers.ServerInputs(tmp_path, tmp_path, None, 1, 1, tmp_path, tmp_path, None)
    server = served.start(kind, given)
    with pytest.raises(PeerError, match="ended before it answered: no such model"):
        server.wait_for(lambda: "not yet")
    server.close()


@pytest.mark.slow
def test_servers_climb_in_turns_and_become_a_table(tiny_bundle: Path, tmp_path: Path) -> None:
    """Bertd alone, and one that is not installed: figures mean nothing, but are there."""
    target = tmp_path / "load.json"
    arguments = ["load", "--model", str(tiny_bundle.parent / "checkpoint"), "--accept-noise"]
    arguments += ["--threads", "1", "--seconds", "0.1", "--rounds", "2", "--steps", "1"]
    arguments += ["--set", "calibration_seconds=0.05", "--set", "warmup_seconds=0"]
    arguments += ["--server", OURS, "--server", "mosec", "--peers", str(tmp_path / "none")]
    done = CliRunner().invoke(bench, [*arguments, "--json", str(target)])
    assert done.exit_code == 0, done.output
    found = read(target, results.GoodputReport, "load")
    assert found.skipped["mosec"] == "not installed: `make peers PEERS=mosec`"
    [entry] = found.entries
    assert entry.difference < 1e-4
    assert entry.cold_start_seconds > 0
    assert [each.round for each in entry.ramps] == [0, 1]
    assert all(step.requests == sum(step.outcomes.values()) for step in entry.steps())
    assert document.goodput(found) in done.output
