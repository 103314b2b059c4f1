"""A real engine under load: refusals say when to come back, answers have their bits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.bundle import read_manifest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import AsyncClient, BertdError, DeadlineExceeded, Overloaded
from bertd_client.errors import from_rpc_error
from bertd_server.config.settings import Settings
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.models import startup
from bertd_server.models.startup import ModelOptions
from bertd_server.scheduling.memory_budget import Reservation
from bertd_server.scheduling.scheduler import SchedulerOptions
from bertd_server.serving.server import Server
from bertd_server.tasks import embedding
from bertd_server.tokenization.reader import Reader, texts_of
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from helpers.served import open_model


def texts(count: int, seed: int) -> list[str]:
    """Different texts of 3 to 200 tokens."""
    rng = random.Random(seed)
    return [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 198))) for _ in range(count)]


@pytest.fixture(scope="module")
def narrow(bundle_folder: Path) -> Iterator[RunningServer]:
    """A server with one lane that lets nobody wait behind another call."""
    settings = Settings(address="127.0.0.1:0", lanes=1, threads=1, max_queue_seconds=0)
    running = RunningServer(bundle_folder, settings)
    yield running
    running.stop()


async def test_a_text_has_the_same_bits_on_every_lane_joined_and_from_the_cache(
    bundle_folder: Path,
) -> None:
    """Many calls at once, with equal texts in them, twice; against the engine, one by one."""
    scheduling = SchedulerOptions(cache_bytes=1 << 20, max_queue_seconds=PATIENCE)
    model = open_model(bundle_folder, ModelOptions(EngineOptions(lanes=2), scheduling))
    asked = texts(40, 1)
    engine = Engine(bundle_folder, read_manifest(bundle_folder))
    alone = {}
    reader = Reader.of(bundle_folder, engine.manifest)
    for text, sequence in zip(asked, reader.sequences(asked), strict=True):
        alone[text] = engine.embed([sequence])[0].tobytes()
    rng = random.Random(2)
    calls = [rng.choices(asked, k=rng.randint(1, 20)) for _ in range(20)]
    for _ in range(2):
        answers = await asyncio.gather(*(embedding.embed(model, texts_of(call)) for call in calls))
        for call, results in zip(calls, answers, strict=True):
            for text, result in zip(call, results, strict=True):
                assert isinstance(result.outcome, np.ndarray)
                assert result.outcome.tobytes() == alone[text]
    await model.drain()
    statistics, gauges = model.statistics, model.gauges()
    assert statistics.deduplicated > 0
    assert gauges.cache_hits >= sum(map(len, calls))
    assert statistics.batch_sequences.total <= len(asked)
    assert statistics.answered == 2 * sum(map(len, calls))
    assert (gauges.waiting, gauges.batches_running, gauges.lanes_alive) == (0, 0, 2)


def test_a_refusal_says_when_to_come_back(narrow: RunningServer) -> None:
    """RetryInfo in the status, pushback in the trailers; none of the calls is lost."""
    with grpc.insecure_channel(narrow.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        calls = [
            stub.Embed.future(inference_pb2.EmbedRequest(texts=[text])) for text in texts(40, 3)
        ]
        refused: list[Any] = [call for call in calls if call.exception() is not None]
    assert 0 < len(refused) < len(calls)
    for call in refused:
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        pushback = dict(call.trailing_metadata())["grpc-retry-pushback-ms"]
        assert 0 < int(pushback) < PATIENCE * 1000
        error = from_rpc_error(call)
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == pytest.approx(int(pushback) / 1000)


class GatedEngine(Engine):
    """Its runs wait at a gate, once the test has closed it."""

    gate = threading.Event()
    entered = threading.Event()

    def answer(self, *given: Any, **options: Any) -> Any:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return super().answer(*given, **options)


async def test_the_client_comes_back_when_the_server_said(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was refused has its answer in the end: the client's gRPC waits as told."""
    monkeypatch.setattr(startup, "Engine", GatedEngine)
    GatedEngine.gate.set()
    # A gate would hold the event loop, if that computed.
    server = Server(tiny_bundle, quick_settings(max_queue_seconds=0, loop_run_seconds=0))
    port = await server.start()
    GatedEngine.gate.clear()
    GatedEngine.entered.clear()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        first = asyncio.create_task(client.embed(["one"]))
        await asyncio.to_thread(GatedEngine.entered.wait, PATIENCE)
        # More than may wait to run beside the lanes.
        others = [asyncio.create_task(client.embed([text])) for text in texts(4, 50)]
        while not server.model.statistics.refused:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        GatedEngine.gate.set()
        answers = await asyncio.gather(first, *others)
    await server.drain()
    assert np.stack(answers).shape == (5, 1, server.model.manifest.dimensions)


async def test_of_more_calls_than_can_be_done_in_time_each_hears_what_became_of_it(
    server: RunningServer,
) -> None:
    """Those with time enough on any machine are answered; which others are depends on it."""
    timeouts = [float(PATIENCE) if number % 20 == 0 else 0.4 for number in range(400)]
    async with AsyncClient(server.address) as client:
        outcomes = await asyncio.gather(
            *(
                client.embed([text], timeout=timeout)
                for text, timeout in zip(texts(400, 5), timeouts, strict=True)
            ),
            return_exceptions=True,
        )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds[::20] == [np.ndarray] * 20
    assert set(kinds) <= {np.ndarray, Overloaded, DeadlineExceeded}
    assert all(one.retry_after_s for one in outcomes if isinstance(one, Overloaded))


async def test_bulk_and_interactive_are_both_answered(server: RunningServer) -> None:
    """The class of a call changes nothing in its answer; times are told."""
    async with AsyncClient(server.address) as client:
        (bulk,) = await client.embed_each(["hello"], priority="bulk")
        (mine,) = await client.embed_each(["hello"])
        with pytest.raises(ValueError, match="pass 'interactive' or 'bulk'"):
            await client.embed(["hello"], priority="urgent")  # type: ignore[arg-type]
    assert not isinstance(bulk, BertdError)
    assert not isinstance(mine, BertdError)
    assert bulk.vector.tobytes() == mine.vector.tobytes()
    assert bulk.total_s >= bulk.compute_s > 0


def test_health_follows_the_lanes(narrow: RunningServer) -> None:
    """NOT_SERVING while no lane lives, SERVING again with the first."""
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    changed = narrow.server.model._scheduler._pool._on_lanes
    with grpc.insecure_channel(narrow.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Watch
        watch = health.Watch(health_pb2.HealthCheckRequest())
        seen = [next(watch).status]
        for alive in (0, 0, 1):
            narrow._loop.call_soon_threadsafe(changed, alive)
            if alive != (0 if seen[-1] == not_serving else 1):
                seen.append(next(watch).status)
        watch.cancel()
    assert seen == [serving, not_serving, serving]


def test_health_has_so_many_watchers_and_no_more(tiny_bundle: Path) -> None:
    """The third is refused with the limit and the remedy; once one has left, it is taken."""
    running = RunningServer(tiny_bundle, quick_settings(max_health_watches=2))
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(running.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Watch
        watches = [health.Watch(request) for _ in range(2)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            next(health.Watch(request))
        refused: Any = caught.value
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 calls of Health.Watch are open" in refused.details()
        assert "--max-health-watches" in refused.details()
        assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        watches[0].cancel()
        status = None
        while status is None:  # until the server has heard of it
            with contextlib.suppress(grpc.RpcError):
                status = next(health.Watch(request)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    running.stop()


def test_a_call_that_waits_for_memory_is_told_that_the_server_stops(tiny_bundle: Path) -> None:
    """What has the memory never gives it back within the drain's time."""
    running = RunningServer(tiny_bundle, quick_settings(drain_seconds=0.1))
    memory = running.server.memory

    async def all_for_long_texts() -> Reservation:
        memory.relimit(8 * 2**20)
        return await memory.reserve(7 * 2**20)

    try:
        held = running.on_loop(all_for_long_texts())
        with grpc.insecure_channel(running.address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            request = inference_pb2.EmbedRequest(texts=["cat " * 20] * 256)
            call = stub.Embed.future(request, timeout=PATIENCE)
            while not memory.waiting:
                assert not call.done()
            running.on_loop(running.server.drain())
            assert call.code() is grpc.StatusCode.UNAVAILABLE
            assert call.details() == (
                "the server stopped before there was memory: send the request again"
            )
        held.release()
    finally:
        running.stop()
