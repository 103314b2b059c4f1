"""What follows a model's run, on a server: nobody else waits for it, and it outlives nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.serving.server import Server
from bertd_server.system.exits import Exit
from bertd_server.tasks import concluding, embedding
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.patience import PATIENCE
from helpers.running import quick_settings
from helpers.served import OF_TASK, Served, export_tiny, long_enough, serving


@contextmanager
def held(model: Model) -> Iterator[None]:
    """The executor's thread is in a step of another job; all of the model's jobs go there."""
    entered, opened = threading.Event(), threading.Event()

    def steps() -> Steps[None]:
        entered.set()
        assert opened.wait(PATIENCE)
        yield

    model._executor.inline_seconds = 0
    job = model.jobs.submit(steps())
    assert entered.wait(PATIENCE)
    yield
    opened.set()
    job.cancel()


@asynccontextmanager
async def asked(server: Server) -> AsyncIterator[Any]:
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


async def until(met: Any) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


async def test_abandoned_calls_leave_nothing_behind(tmp_path_factory: Any) -> None:
    """Nor what they were about: the next call is answered once the thread is free."""
    _, bundle = export_tiny(
        tmp_path_factory, "bert", "question-answering", **OF_TASK["question-answering"]
    )
    server = Server(bundle, quick_settings())
    async with asked(server) as stub:
        jobs = server.model.jobs
        with held(server.model):
            request = pb.AnswerRequest(inputs=[pb.QuestionInput(question="who", context="a cat")])
            calls = [stub.Answer(request) for _ in range(50)]
            await until(lambda: len(jobs.waiting) == len(calls))
            assert server.model.gauges().waiting_jobs == len(calls)
            for call in calls:
                call.cancel()
            await until(lambda: not jobs.waiting)
            assert jobs.statistics.dropped == len(calls)
        answered = await stub.Answer(request)
        assert answered.results[0].spans.spans
    assert await server.drain() is Exit.FINISHED


async def test_a_drain_waits_for_no_conclusion_beyond_its_time(tiny_bundle: Path) -> None:
    """The call is cancelled, as the exit code says, though the thread never comes back."""
    server = Server(tiny_bundle, quick_settings(drain_seconds=0))
    async with asked(server) as stub:
        with held(server.model):
            call = stub.Embed(pb.EmbedRequest(texts=["hello"]))
            await until(lambda: server.model.jobs.waiting)
            assert await server.drain() is Exit.CANCELLED
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await call
    threads = [one for one in threading.enumerate() if one.name == "bertd-conclude"]
    assert all(one.daemon for one in threads)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory, "bert", "feature-extraction") as served:
        yield served


def test_inputs_are_concluded_as_their_windows_are_there(
    embedder: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives up its outputs before the call has all; what comes out is the same."""
    text, _ = long_enough(embedder, 1_500)
    texts = texts_of([f"{text} {number}" for number in range(4)])
    early: list[int] = []
    begin = concluding.Conclusions._begin

    def begun(self: Any) -> None:
        early.append(sum(one.missing > 0 for one in self.inputs))
        begin(self)

    def asked() -> list[Any]:
        return embedder.ask(embedding.embed_tokens(embedder.model, texts, Fit("window", stride=9)))

    late = asked()
    monkeypatch.setattr(concluding.Conclusions, "_begin", begun)
    monkeypatch.setattr(concluding, "_LIGHT_BYTES", 0)
    for one, other in zip(asked(), late, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
        assert list(one.tokens) == list(other.tokens)
    assert early[0] > 0
