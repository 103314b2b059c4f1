"""Memory of requests in a server: what ends it, what waits, what goes back to the system."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_server.process.trimming import Trimmer, trim_function
from bertd_server.process.watchdog import Watchdog
from bertd_server.scheduling.memory_budget import MemoryBudget
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helpers.held import Clock
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from helpers.virtual import virtually

MIB = 2**20
# How many refusals are left after a call that was refused, where nothing collects garbage.
REFUSED = """
import gc, sys
from pathlib import Path
import grpc
from bertd.v1 import inference_pb2 as pb, inference_pb2_grpc
from bertd_server.errors import Overloaded
from helpers.running import RunningServer, quick_settings
running = RunningServer(Path(sys.argv[1]), quick_settings(http_address="off"))
running.server.memory.relimit(1_000)
gc.collect()
gc.disable()
with grpc.insecure_channel(running.address) as channel:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    try:
        stub.Embed(pb.EmbedRequest(texts=["the cat"]))
        print("was not refused")
    except grpc.RpcError:
        pass
running.stop()
print(sum(type(each) is Overloaded for each in gc.get_objects()))
"""


@pytest.fixture
def running(tiny_bundle: Path) -> Iterator[RunningServer]:
    """A server whose requests may take 256 KiB."""
    it = RunningServer(tiny_bundle, quick_settings())
    it.server.memory.relimit(MIB // 4)
    yield it
    it.stop()


def test_memory_that_requests_have_ends_no_process_and_holds_new_ones_back() -> None:
    """Only what stays high with no large call in flight does not heal."""

    async def main() -> None:
        requests, resident = MemoryBudget(8 * MIB), [111]
        watch = Watchdog(
            list,
            seconds=0,
            memory_limit=100,
            requests=requests,
            clock=Clock(),
            resident=lambda: resident[0],
        )
        call = await requests.reserve(MIB)
        assert [watch.look() for _ in range(5)] == [None] * 5
        waits = asyncio.ensure_future(requests.reserve(MIB))
        await asyncio.sleep(0)
        call.release()
        assert watch.look() is None
        resident[0] = 109
        assert watch.look() is None  # it was the call's, and what waited goes on
        (await waits).release()
        resident[0] = 111
        found = [watch.look() for _ in range(2)]
        assert found[0] is None
        assert found[1] is not None
        assert found[1].what == "memory beyond its limit"

    virtually(main())


def test_freed_memory_goes_back_once_for_all_calls_that_end_together() -> None:
    async def main() -> None:
        trims: list[float] = []
        trimmer = Trimmer(lambda: trims.append(0))
        memory = MemoryBudget(8 * MIB)
        memory.when_freed(trimmer.soon)
        (await memory.reserve(10)).release()
        for call in [await memory.reserve(MIB) for _ in range(3)]:
            call.release()
        await asyncio.sleep(1)
        (await memory.reserve(MIB)).release()
        trimmer.close()
        await asyncio.sleep(1)
        trimmer._thread.shutdown(wait=True)
        assert len(trims) == 1

    virtually(main())
    trim = trim_function()
    assert trim is None or trim() in {0, 1}


def test_a_call_beyond_its_memory_is_refused_over_the_wire(running: RunningServer) -> None:
    with grpc.insecure_channel(running.address) as channel:
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Embed(
                pb.EmbedRequest(
                    texts=["the cat " * 1_000] * 8, long_text=pb.LONG_TEXT_POLICY_WINDOW, stride=50
                ),
                timeout=PATIENCE,
            )
        stub.Embed(pb.EmbedRequest(texts=["the cat"]), timeout=PATIENCE)
    refused: Any = raised.value
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(refused)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == "CALL_MEMORY"
    assert "texts would take about" in status.message
    while running.server.memory.held:  # what a call has lasts until its answer has been sent
        time.sleep(0.01)
    assert running.server.model.statistics.refused["call_memory"] == 1


def test_a_refused_call_leaves_nothing_behind(tiny_bundle: Path) -> None:
    """Not even until a collection: gRPC keeps the error, and so the frames that raised it."""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tiny_bundle)],
        env=os.environ | {"PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
