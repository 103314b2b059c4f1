"""Every RPC at what a caller may legally ask of it, beside a neighbour that asks short things.

`make test` asks a tiny server each of them once and looks at everything but times; `make
robustness` drills them all on one of MiniLM's shape, and holds it to the marks of `drill.faults`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2 as pb
from bertd_server.rpc.services import SERVICES
from helpers.once import once
from robustness import drill
from robustness.drill import Drill
from robustness.scale import LARGE, patient
from robustness.worst_calls import BY_NAME, LIGHT, ROWS, STRIDE, V1, windowed

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc"),
    patient,
]

QUICK = ("--warmup-seconds", "0", "--calibration-seconds", "0.05")
SECONDS = 3.0 if LARGE else 0.3
FEW = ["InferenceService/Embed: windows", "InferenceService/Embed: a text too many"]
ABANDONED = 2_000 if LARGE else 20
ABANDONED_SECONDS = 5.0


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    task_bundle: Callable[[Task], Path],
) -> Path:
    """A repository of the table's models; of those that few rows need, tiny ones at hand."""

    def make(folder: Path) -> None:
        root = folder / "models"
        if LARGE:
            drill.make_models(root, minilm=True)
            return
        for name in (drill.NEIGHBOUR, drill.VECTORS):
            shutil.copytree(tiny_bundle, root / name / "1")
        shutil.copytree(task_bundle("question-answering"), root / "spans" / "1")

    return once(tmp_path_factory, f"worst-calls-{LARGE}", make) / "models"


@pytest.fixture(scope="module")
def running(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A server, and its callers' processes."""
    scratch = tmp_path_factory.mktemp("drill")
    with Drill(models, scratch, *(() if LARGE else QUICK), seconds=SECONDS) as it:
        yield it


def test_every_rpc_is_in_the_table() -> None:
    """A new one cannot be forgotten, nor be named twice."""
    rpcs = {f"{service.full_name}/{each.name}" for service in SERVICES for each in service.methods}
    assert rpcs == LIGHT | {row.rpc for row in ROWS}
    assert len(BY_NAME) == len(ROWS)


@pytest.mark.parametrize("name", list(BY_NAME) if LARGE else FEW)
def test_the_worst_call_holds_nobody_else(running: Drill, name: str) -> None:
    """Its neighbour is answered, and what is wrong with it is said."""
    row = BY_NAME[name]
    found = running.run(row)
    if not row.beyond:
        running.end(row, found)
    known = {"OK", "CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
    assert found.outcomes.keys() <= known
    assert ("OK" not in found.outcomes) or not row.beyond
    assert not drill.faults(found, running.idle, times=LARGE)


def test_calls_whose_callers_have_left_leave_nothing(running: Drill) -> None:
    """Neither work nor memory: what comes next is answered as if they had not been."""
    row = BY_NAME["InferenceService/Answer: spans"]
    (message,) = row.make(row.model)
    with grpc.insecure_channel(running.server.address) as channel:
        call: Any = channel.unary_unary(f"/{row.rpc}")
        _abandon(call, message.SerializeToString(), 8)  # what a server keeps of its first ones
        time.sleep(ABANDONED_SECONDS if LARGE else 0)
        before = running.server.resident_bytes()
        _abandon(call, message.SerializeToString(), ABANDONED)
        begin = time.monotonic()
        embed: Any = channel.unary_unary(f"/{V1}/Embed")
        embed(pb.EmbedRequest(model=drill.NEIGHBOUR, texts=["a"]).SerializeToString(), timeout=60)
        if LARGE:
            time.sleep(max(0.0, begin + ABANDONED_SECONDS - time.monotonic()))
            assert running.server.resident_bytes() < drill.MOST_GROWTH * before
            assert time.monotonic() - begin < ABANDONED_SECONDS + 1


def _abandon(call: Any, message: bytes, count: int) -> None:
    """Make calls, and leave each before its answer."""
    for _ in range(count):
        with suppress(grpc.RpcError):
            call(message, timeout=0.02)


def test_six_of_the_largest_calls_end_no_supervised_server(models: Path, tmp_path: Path) -> None:
    """They wait for memory or are refused; the limit is not what ends the process."""
    flags = ("--memory-limit", "800MiB", "--supervise", *(() if LARGE else QUICK))
    with Drill(models, tmp_path, *flags, seconds=SECONDS) as it:
        began = it.server.pid
        with grpc.insecure_channel(it.server.address) as channel:
            embed: Any = channel.unary_unary(f"/{V1}/Embed")
            message = _windows(drill.VECTORS).SerializeToString()
            calls = [embed.future(message, timeout=30 if LARGE else 3) for _ in range(6)]
            for each in calls:
                with suppress(grpc.RpcError):
                    each.result()
            short = pb.EmbedRequest(model=drill.NEIGHBOUR, texts=["a"]).SerializeToString()
            assert embed(short, timeout=60)
        assert it.server.pid == began
        starts = [event for event in it.server.events() if event["event"] == "serving"]
        assert len(starts) == 1, it.server.events()


def _windows(model: str) -> pb.EmbedRequest:
    """D1 of the cases: nearly as many windows as there may be."""
    texts = windowed(64 if LARGE else 8)
    window = pb.LONG_TEXT_POLICY_WINDOW
    return pb.EmbedRequest(model=model, texts=texts, long_text=window, stride=STRIDE)
