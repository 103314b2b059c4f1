"""Streams: in order, a few requests ahead, and nothing left behind when they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_server.errors import Draining
from bertd_server.rpc.streams import BYTES_IN_WORK, closed_after_use, in_order
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from helpers.served import export_tiny

IN_WORK = 7  # and one that is read, and waits


class Numbers:
    """A sender that counts what has been taken from it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self._count):
            self.sent += 1
            yield number


class Workers:
    """Work that waits to be let go, one number at a time."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self._permits: dict[int, asyncio.Event] = {}

    async def __call__(self, number: int) -> int:
        self.running.add(number)
        try:
            await self.permit(number).wait()
        finally:
            self.running.discard(number)
        return number * 10

    def permit(self, number: int) -> asyncio.Event:
        return self._permits.setdefault(number, asyncio.Event())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_no_more_is_read_than_a_few_ahead() -> None:
    """Work ends in another order; the responses come in the order of the requests."""
    numbers, work = Numbers(100), Workers()
    stream = in_order(aiter(numbers), work, asyncio.Event())
    first = asyncio.ensure_future(anext(stream))
    await settle()
    assert (numbers.sent, len(work.running)) == (IN_WORK + 1, IN_WORK)
    for number in reversed(range(1, IN_WORK)):
        work.permit(number).set()
    await settle()
    assert numbers.sent == IN_WORK + 1
    assert not first.done()
    work.permit(0).set()
    answers = [await first]
    assert numbers.sent == IN_WORK + 1
    for number in range(100):
        work.permit(number).set()
    answers += [answer async for answer in stream]
    assert answers == [number * 10 for number in range(100)]


async def test_large_requests_are_read_one_at_a_time() -> None:
    """Seven of 16 MiB, of each of a hundred streams, would be in memory at once."""
    large = pb.EmbedRequest(texts=["a" * (BYTES_IN_WORK // 3)])
    one_too_large = pb.EmbedRequest(texts=["a" * (2 * BYTES_IN_WORK)])
    read: list[int] = []
    let_go = asyncio.Event()

    async def requests() -> AsyncIterator[pb.EmbedRequest]:
        for number, request in enumerate((large, large, large, one_too_large, large)):
            read.append(number)
            yield request

    running: list[int] = []

    async def work(request: pb.EmbedRequest) -> int:
        running.append(len(request.texts[0]))
        await let_go.wait()
        return len(request.texts[0])

    stream = in_order(requests(), work, asyncio.Event())
    first = asyncio.ensure_future(anext(stream))
    await settle()
    assert (len(running), len(read)) == (2, 3)
    let_go.set()
    answers = [await first] + [answer async for answer in stream]
    assert answers == [len(one.texts[0]) for one in (large, large, large, one_too_large, large)]


async def test_whoever_leaves_leaves_nothing_running() -> None:
    numbers, work = Numbers(100), Workers()
    work.permit(0).set()
    async with closed_after_use(in_order(aiter(numbers), work, asyncio.Event())) as stream:
        assert await anext(stream) == 0
        await settle()
        assert work.running
    await settle()
    assert not work.running
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


async def test_a_server_that_closes_answers_what_it_has_read() -> None:
    numbers, work, closing = Numbers(100), Workers(), asyncio.Event()
    stream = in_order(aiter(numbers), work, closing)
    first = asyncio.ensure_future(anext(stream))
    await settle()
    closing.set()
    for number in range(100):
        work.permit(number).set()
    answers = [await first]

    async def rest() -> None:
        async for answer in stream:
            answers.append(answer)  # noqa: PERF401 - it ends with an error

    with pytest.raises(Draining, match="send the rest of the stream to another"):
        await rest()
    assert answers == [number * 10 for number in range(IN_WORK)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    _, bundle = export_tiny(tmp_path_factory, "bert", "feature-extraction")
    running = RunningServer(bundle, quick_settings(max_texts_per_call=4))
    yield running
    running.stop()


def stub(channel: grpc.Channel) -> Any:
    return inference_pb2_grpc.InferenceServiceStub(channel)


def test_bulk_work_is_answered_in_order(encoder: RunningServer) -> None:
    """Each request by itself: one that fails says so in its results, and the stream goes on."""
    requests = [pb.EmbedRequest(texts=["the cat", f"서울 {n}"]) for n in range(40)]
    requests[3] = pb.EmbedRequest(texts=["a"] * 1_000)
    requests[5] = pb.EmbedRequest(texts=["a", ""])
    requests[7] = pb.EmbedRequest(texts=["a", "b"], model="nobody")
    with grpc.insecure_channel(encoder.address) as channel:
        responses = list(stub(channel).EmbedStream(iter(requests)))
        alone = stub(channel).Embed(requests[20])
    assert len(responses) == len(requests)
    assert [one.embedding for one in responses[20].results] == [
        one.embedding for one in alone.results
    ]
    outcomes = [[one.WhichOneof("outcome") for one in each.results] for each in responses]
    assert outcomes[3] == ["error"] * 4  # as many as a call may have
    assert outcomes[5] == ["embedding", "error"]
    assert outcomes[7] == ["error"] * 2
    assert responses[7].results[0].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    rest = [each for number, each in enumerate(outcomes) if number not in {3, 5, 7}]
    assert all(each == ["embedding"] * 2 for each in rest)


def test_bytes_that_are_no_message_end_the_stream_after_what_came_before(
    encoder: RunningServer,
) -> None:
    good = pb.EmbedRequest(texts=["the cat"]).SerializeToString()
    with grpc.insecure_channel(encoder.address) as channel:
        call: Any = channel.stream_stream("/bertd.v1.InferenceService/EmbedStream")
        responses = call(iter([good, good, b"\x12\x02\xff\xfe", good]))
        received = [pb.EmbedResponse.FromString(next(responses)) for _ in range(2)]
        with pytest.raises(grpc.RpcError) as caught:
            next(responses)
    assert reason(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, "NOT_UNICODE")
    assert all(one.results[0].embedding for one in received)


def reason(error: Any) -> tuple[grpc.StatusCode, str]:
    """The code and the ErrorInfo's reason."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "bertd"
    return error.code(), info.reason


def test_a_cancelled_stream_takes_its_work_out_of_the_line(
    encoder: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is computed, or waits, any more; the next call is answered."""
    running: set[object] = set()
    begun, ended = threading.Event(), threading.Event()
    model = encoder.server.model

    async def wait(*_: Any) -> Any:
        mine = object()
        running.add(mine)
        if len(running) == IN_WORK:
            begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(mine)
            if not running:
                ended.set()

    with grpc.insecure_channel(encoder.address) as channel:
        with monkeypatch.context() as patch:
            patch.setattr(model, "compute", wait)
            call = stub(channel).EmbedStream(pb.EmbedRequest(texts=["a"]) for _ in range(50))
            assert begun.wait(PATIENCE)
            assert len(running) == IN_WORK
            call.cancel()
            assert ended.wait(PATIENCE)
        assert stub(channel).Embed(pb.EmbedRequest(texts=["a"])).results[0].embedding


def test_a_drain_ends_open_streams(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was sent is answered; then the client is told to go elsewhere, well before the limit."""
    _, bundle = export_tiny(tmp_path_factory, "bert", "feature-extraction")
    running = RunningServer(bundle, quick_settings(drain_seconds=900))
    more = threading.Event()

    def requests() -> Iterator[pb.EmbedRequest]:
        yield pb.EmbedRequest(texts=["the cat"])
        more.wait(PATIENCE)

    with grpc.insecure_channel(running.address) as channel:
        stream = stub(channel).EmbedStream(requests())
        assert next(stream).results[0].embedding
        running.stop()  # waits 60 s at most
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        more.set()
    assert reason(caught.value) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
