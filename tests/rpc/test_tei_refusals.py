"""Calls of tei.v1 that cannot be answered, and how their streams end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from bertd_server.errors import Overloaded
from bertd_server.rpc.tei.service import patiently
from helpers.fresh_tei import FreshClient
from helpers.patience import PATIENCE
from helpers.tei_served import FAILED, INVALID, LONG, Served, good


@pytest.fixture
def embedder(tei: Callable[[str], Served]) -> Served:
    return tei("embedder")


@pytest.fixture
def ranker(tei: Callable[[str], Served]) -> Served:
    return tei("ranker")


@pytest.mark.parametrize(
    ("path", "request_", "said"),
    [
        ("Embed.Embed", {"inputs": ""}, "inputs is empty"),
        ("Embed.Embed", {"inputs": LONG}, "ask for truncation (truncate = true)"),
        ("Embed.Embed", {"inputs": "w1", "truncation_direction": 7}, "truncation_direction is 7"),
        ("Embed.Embed", {"inputs": "w1", "prompt_name": "query"}, "prompt_name 'query'"),
        ("Embed.Embed", {"inputs": "w1", "dimensions": 0}, "ask for 1 to 32"),
        ("Embed.Embed", {"inputs": "w1", "dimensions": 33}, "ask for 1 to 32"),
        ("Tokenize.Tokenize", {"inputs": ""}, "inputs is empty"),
        ("Tokenize.Decode", {"ids": []}, "ids has 0 entries"),
        ("Tokenize.Decode", {"ids": [1, 100]}, "ids[1] is 100"),
        ("Tokenize.Decode", {"ids": [1] * 4_050 + [100]}, "ids[4050] is 100"),
    ],
)
def test_what_cannot_be_answered_is_said(
    fresh: FreshClient, embedder: Served, path: str, request_: dict[str, Any], said: str
) -> None:
    heard = fresh(embedder.address, path, request_)
    assert heard.code == INVALID
    assert said in heard.details


def test_calls_with_too_few_or_too_many_texts(fresh: FreshClient, ranker: Served) -> None:
    for inputs in ([], ["w1", "w2", "w3"], ["", ""]):
        heard = fresh(ranker.address, "Predict.PredictPair", {"inputs": inputs})
        assert heard.code == INVALID
    for texts, said in (([], "texts is empty"), (["w1"] * 5, "takes at most 4")):
        heard = fresh(ranker.address, "Rerank.Rerank", {"query": "w1", "texts": texts})
        assert heard.code == INVALID
        assert said in heard.details
    heard = fresh(ranker.address, "Rerank.RerankStream")
    assert (heard.code, "no request" in heard.details) == (INVALID, True)


def test_the_answer_to_a_stream_is_bounded(fresh: FreshClient, ranker: Served) -> None:
    """It grows with every request: one that never ended would fill the memory."""
    requests = [{"query": "w1", "text": f"w{number}"} for number in range(65)]
    (answer,) = good(fresh(ranker.address, "Rerank.RerankStream", *requests[:64]))
    assert sorted(rank["index"] for rank in answer["ranks"]) == list(range(64))
    heard = fresh(ranker.address, "Rerank.RerankStream", *requests)
    assert (heard.code, "make several streams" in heard.details) == (INVALID, True)


async def test_a_stream_waits_for_room_unless_that_is_in_vain() -> None:
    refusals = [Overloaded("full", reason="queue", retry_after_seconds=0) for _ in range(2)]
    hopeless = Overloaded("full", reason="late", retry_after_seconds=0, in_vain=True)
    context: Any = SimpleNamespace(time_remaining=lambda: 60.0)

    async def work(errors: list[Overloaded], _context: object) -> str:
        if errors:
            raise errors.pop()
        return "answer"

    assert await patiently(work, refusals, context, asyncio.Semaphore(1)) == "answer"
    assert not refusals
    late = Overloaded("full", reason="queue", retry_after_seconds=61)
    for error in (hopeless, late):
        with pytest.raises(Overloaded):
            await patiently(work, [error], context, asyncio.Semaphore(1))


async def test_a_request_that_found_no_room_leaves_nothing_for_a_collection() -> None:
    """Texts of a thousand requests would stay where an error and its frames keep each other."""

    class Text:
        """What is read of a request."""

    kept: list[weakref.ref[Text]] = []
    context: Any = SimpleNamespace(time_remaining=lambda: None)

    async def work(errors: list[Overloaded], _context: object) -> None:
        text = Text()
        kept.append(weakref.ref(text))
        if errors:
            raise errors.pop()
        await asyncio.Event().wait()

    gc.disable()
    try:
        refusal = Overloaded("full", reason="queue", retry_after_seconds=0)
        task = asyncio.create_task(patiently(work, [refusal], context, asyncio.Semaphore(1)))
        del refusal
        while len(kept) < 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        assert kept[0]() is None
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        assert kept[1]() is None
        hopeless = Overloaded("full", reason="late", retry_after_seconds=0, in_vain=True)
        task = asyncio.create_task(patiently(work, [hopeless], context, asyncio.Semaphore(1)))
        await asyncio.wait([task])
        assert task.exception() is hopeless
        del task, hopeless
        assert kept[2]() is None
    finally:
        gc.enable()


async def test_a_stream_that_finds_no_room_does_not_try_all_of_its_requests_again() -> None:
    """A try reads the text on the event loop: the first of those that wait try, in order."""
    turns, tries = asyncio.Semaphore(2), list[int]()
    context: Any = SimpleNamespace(time_remaining=lambda: None)
    is_full = True

    async def work(number: int, _context: object) -> int:
        tries.append(number)
        if is_full:
            raise Overloaded("full", reason="queue", retry_after_seconds=0)
        return number

    stream = [asyncio.create_task(patiently(work, one, context, turns)) for one in range(20)]
    while len(tries) < 30:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    assert tries[:20] == list(range(20))
    assert set(tries[20:]) == {0, 1}
    is_full = False
    assert await asyncio.gather(*stream) == list(range(20))


def test_the_first_failure_ends_a_stream(fresh: FreshClient, embedder: Served) -> None:
    """Answers before it come, in order; then its status."""
    requests = [{"inputs": text} for text in ("w1", "w2", "", "w3")]
    heard = fresh(embedder.address, "Embed.EmbedStream", *requests)
    assert len(heard.answers) == 2
    assert heard.code == INVALID
    assert "inputs is empty" in heard.details


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("Predict.Predict", {"inputs": "w1"}),
        ("Predict.PredictStream", {"inputs": "w1"}),
        ("Rerank.Rerank", {"query": "w1", "texts": ["w2"]}),
        ("Rerank.RerankStream", {"query": "w1", "text": "w2"}),
        ("Embed.EmbedSparse", {"inputs": "w1"}),
    ],
)
def test_another_tasks_calls_are_refused(
    fresh: FreshClient, embedder: Served, path: str, request_: dict[str, Any]
) -> None:
    heard = fresh(embedder.address, path, request_)
    assert heard.code == FAILED
    assert "is for feature-extraction" in heard.details


def test_bytes_that_are_no_message_end_a_stream_with_the_fields_name(ranker: Served) -> None:
    with grpc.insecure_channel(ranker.address) as channel:
        call: Any = channel.stream_unary("/tei.v1.Rerank/RerankStream")
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([b"\x12\x01\xff"]), timeout=PATIENCE)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "text is not valid UTF-8" in error.details()
