"""Calls that are too much as a whole: the client sends their inputs in smaller ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bertd.bundle import Task
from bertd_client import AsyncClient, BertdError, Client, Filling, InvalidArgument
from bertd_server.tokenization import text_queue
from bertd_server.tokenization.reader import Input, texts_of
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings


def masks(outcome: Filling | BertdError) -> object:
    """What does not differ from run to run."""
    return outcome.masks if isinstance(outcome, Filling) else (str(outcome), outcome.reason)


async def test_masks_that_are_too_many_for_one_call_are_filled_in_several(
    task_server: Callable[[Task], RunningServer],
) -> None:
    """A call gives 4 million characters of candidates: 1,000 for each mask, each with its text."""
    word = "x" * 750
    asked = [f"the [MASK] {number} {word} [MASK]" for number in range(5)]
    asked[1] = f"{word} {'[MASK] ' * 6}"  # alone too many
    asked[3] = "no mask"
    address = task_server("fill-mask").address
    with Client(address, inputs_per_call=1) as client:
        alone = client.fill_mask_each(asked, top_k=1_000)
    with Client(address) as client:
        together = client.fill_mask_each(asked, top_k=1_000)
    async with AsyncClient(address) as client_:
        together_ = await client_.fill_mask_each(asked, top_k=1_000)
    assert [masks(one) for one in alone] == [masks(one) for one in together]
    assert [masks(one) for one in together_] == [masks(one) for one in together]
    wrong = {place: one for place, one in enumerate(together) if isinstance(one, BertdError)}
    assert {place: one.reason for place, one in wrong.items()} == {
        1: "TOO_LONG",
        3: "INVALID_INPUT",
    }
    assert all(isinstance(one, InvalidArgument) for one in wrong.values())
    assert [one.index for one in wrong.values()] == [1, 3]
    assert "texts[1] has " in str(wrong[1])
    assert "bytes of answer" in str(wrong[1])


def test_sparse_vectors_that_are_too_large_for_one_answer_come_in_several(
    task_bundle: Callable[[Task], Path],
) -> None:
    """How large they are is known only once they are computed: some have theirs, others wait."""
    texts = [f"{word} sat on the mat" for word in ("cat", "dog", "sea", "mat", "the")]
    settings = quick_settings(max_message_bytes=4096)
    running = RunningServer(task_bundle("fill-mask"), settings)
    with Client(running.address, inputs_per_call=1) as client:
        alone = client.embed_sparse(texts)
    sizes = [60 + 5 * len(one.indices) for one in alone]
    assert max(sizes) < 4096 < sum(sizes)
    with Client(running.address) as client:
        together = client.embed_sparse(texts)
    running.stop()
    for one, other in zip(alone, together, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert one.values.tolist() == other.values.tolist()


def test_a_call_that_only_an_idle_server_takes_is_sent_in_halves(
    task_bundle: Callable[[Task], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """12,000 characters, where 10,000 may wait and 3,000 do; its halves find room."""
    monkeypatch.setattr(text_queue, "PATIENCE_SECONDS", 0.01)
    settings = quick_settings(max_queue_characters=10_000)
    running = RunningServer(task_bundle("feature-extraction"), settings)
    model = running.server.model
    started, let_go = threading.Event(), threading.Event()

    def held(part: Sequence[Input]) -> list[None]:
        started.set()
        assert let_go.wait(PATIENCE)
        return [None] * len(part)

    asked = [f"{word} " * 750 for word in ("cat", "dog", "sea", "mat")]
    holder = asyncio.run_coroutine_threadsafe(
        model._texts.run(texts_of(asked[:1]), held), running._loop
    )
    assert started.wait(PATIENCE)
    with Client(running.address, concurrency=1) as client, ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.embed, asked, long_text="truncate")
        while not call.done() and model.gauges().waiting_characters < 9_000:
            client.get_model()
        let_go.set()
        split = call.result()
        holder.result(PATIENCE)
        together = client.embed(asked, long_text="truncate")  # nothing waits now
    assert split.tobytes() == together.tobytes()
    assert model.statistics.refused.keys() == {"call_characters"}
    running.stop()
