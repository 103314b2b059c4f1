"""What waits for the tokeniser: bounded, in turn, and dropped once nobody wants it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from bertd import bundle
from bertd_server.errors import DeadlineMissed, Draining, InvalidInput, Overloaded
from bertd_server.tokenization import text_queue
from bertd_server.tokenization.reader import Fit, Input, Reader, Reading, texts_of
from bertd_server.tokenization.text_queue import (
    INLINE_CHARACTERS,
    SLICE_CHARACTERS,
    TextOptions,
    TextQueue,
)
from helpers.held import Clock
from helpers.patience import PATIENCE

LIMIT = 30_000  # characters of a text
LONG = "a " * (INLINE_CHARACTERS + 1)


class HeldReader(Reader):
    """The real one, whose thread the test holds back; it keeps what it was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder / bundle.TOKENIZER_NAME, max_tokens=16, token_types=2, max_characters=LIMIT
        )
        self.permits = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.slices: list[list[str]] = []

    def read(self, inputs: Sequence[Input]) -> list[Reading | InvalidInput]:
        if threading.current_thread() is not threading.main_thread():
            self.begun.release()
            assert self.permits.acquire(timeout=PATIENCE)
        self.slices.append([one.text for one in inputs])
        return self(inputs, Fit("truncate"))


class Queue(TextQueue):
    """A queue before a held reader, with a clock that the test sets."""

    def __init__(self, folder: Path, most: int) -> None:
        self.held = HeldReader(folder)
        self.clock = Clock()
        self.refused = Counter[str]()
        super().__init__(TextOptions(LIMIT, most), self.refused, clock=self.clock)

    def ask(self, *texts: str, within: float = 9.0) -> asyncio.Task[list[Reading | InvalidInput]]:
        """Begin a call."""
        deadline = self.clock.now + within
        return asyncio.create_task(self.run(texts_of(texts), self.held.read, deadline=deadline))


async def test_a_text_that_is_too_long_is_refused_alone_and_not_encoded(tiny_bundle: Path) -> None:
    """Whatever the policy; it does not count as waiting either."""
    queue = Queue(tiny_bundle, most=1)
    queue.held.permits.release(10)
    texts = ["a", "b" * (LIMIT + 1), LONG, "b " * (LIMIT // 2)]
    good, refused, *others = await queue.ask(*texts)
    assert isinstance(refused, InvalidInput)
    assert refused.field == "texts[1]"
    assert f"30001 characters, the server reads at most {LIMIT}" in refused.message
    assert "--max-text-characters" in refused.message
    for outcome, tokens in zip([good, *others], [3, 2 + 2001, 2 + 15_000], strict=True):
        assert isinstance(outcome, Reading)
        assert outcome.tokens == tokens
    assert queue.held.slices == [texts[:3], texts[3:]]
    assert queue.waiting == 0
    queue.close()


async def test_too_many_characters_are_refused_before_any_is_encoded(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty queue takes any call; short calls are answered meanwhile."""
    monkeypatch.setattr(text_queue, "PATIENCE_SECONDS", 0.01)
    queue = Queue(tiny_bundle, most=2 * len(LONG))
    first, second = queue.ask(LONG, LONG, LONG), queue.ask("a")
    assert len(await second) == 1
    with pytest.raises(Overloaded, match=r"12006 characters wait .* limit is 8004: ") as caught:
        await queue.ask(LONG)
    assert caught.value.reason == "queue_characters"
    assert 0 < caught.value.retry_after_seconds < 1
    queue.held.permits.release(10)
    await first
    await asyncio.gather(queue.ask(LONG), queue.ask(LONG))
    assert queue.refused == {"queue_characters": 1}
    assert queue.waiting == 0
    queue.close()


async def test_a_call_waits_for_room_before_it_is_refused(tiny_bundle: Path) -> None:
    """In its order, a few at once, and where its deadline allows for that; who leaves, leaves."""
    queue = Queue(tiny_bundle, most=len(LONG))
    holds = queue.ask(LONG)
    await asyncio.to_thread(queue.held.begun.acquire)
    with pytest.raises(Overloaded, match="4002 characters wait") as caught:
        await queue.ask(LONG, within=1e-9)
    assert not caught.value.in_vain
    first, gone, *others = (queue.ask(LONG + str(number)) for number in range(8))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await queue.ask(LONG)  # so many wait already
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert not first.done()
    assert queue.waiting == len(LONG)
    queue.held.permits.release(10)
    await asyncio.gather(holds, first, *others)
    assert queue.held.slices == [[LONG]] + [[LONG + str(number)] for number in (0, *range(2, 8))]
    assert queue.refused == {"queue_characters": 2}
    assert queue.waiting == 0
    queue.close()


async def test_what_nobody_wants_any_more_is_not_encoded(tiny_bundle: Path) -> None:
    """Cancelled calls and late ones, those that wait behind a slice of their own included."""
    queue = Queue(tiny_bundle, most=10**6)
    half = "a " * (SLICE_CHARACTERS // 2)
    running = queue.ask(half, half + "b")
    gone, late, kept = queue.ask(LONG + "1"), queue.ask(LONG + "2", within=1.0), queue.ask(LONG)
    await asyncio.to_thread(queue.held.begun.acquire)
    running.cancel()
    gone.cancel()
    queue.clock.now += 2.0
    await asyncio.gather(running, gone, return_exceptions=True)
    queue.held.permits.release(10)
    with pytest.raises(DeadlineMissed, match="while texts waited for the tokeniser"):
        await late
    assert len(await kept) == 1
    assert queue.held.slices == [[half], [LONG]]
    assert queue.refused == {"deadline": 1}
    assert queue.waiting == 0
    queue.close()


async def test_long_calls_take_turns(tiny_bundle: Path) -> None:
    """A call of many slices delays another by one of them; a stop ends it between two."""
    queue = Queue(tiny_bundle, most=10**6)
    slice_ = "a " * (SLICE_CHARACTERS // 2)
    long, short = queue.ask(*[slice_] * 5, "  "), queue.ask(LONG)
    queue.held.permits.release(3)
    await short
    assert not long.done()
    assert queue.held.slices[:2] == [[slice_], [LONG]]
    queue.held.permits.release(10)
    outcomes = await long
    queue.held.begun, queue.held.permits = threading.Semaphore(0), threading.Semaphore(0)
    assert isinstance(outcomes[5], InvalidInput)
    assert outcomes[5].field == "texts[5]"
    stopped = queue.ask(slice_, slice_)
    await asyncio.to_thread(queue.held.begun.acquire)
    queue.close()
    queue.held.permits.release(10)
    with pytest.raises(Draining):
        await stopped
    assert queue.waiting == 0
