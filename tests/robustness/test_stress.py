"""Thousands of calls at once on a real server and engine; some are cancelled, some make it fail.

The engine is held until the queue is full: so calls are cancelled, expire and are refused there,
however fast the machine is.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd import bundle
from bertd.bundle.arrays import Float32Array
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.harness.texts import WORDS
from bertd_server.config.settings import Settings
from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import DeadlineMissed, RequestError
from bertd_server.models import startup
from bertd_server.scheduling.dispatcher import Dispatcher
from bertd_server.scheduling.scheduler import Scheduler
from bertd_server.serving.server import Server
from bertd_server.tasks import embedding
from bertd_server.tasks.ask import CallContext
from bertd_server.tokenization.reader import Reader, texts_of
from helpers.patience import PATIENCE

CALLS = 3_000
CONNECTIONS = 8
POISON, DEADLY = WORDS[:2]
HARMLESS = WORDS[2:]
FIRST_WORD = 5  # the number of the first word; special tokens go before it
LANES = 2
CACHE_BYTES = 100_000  # of the answers of a hundred texts or so
QUEUE_TOKENS = 15_000  # half of what all different texts have
HELD_TEXTS = 2_000  # are submitted before the engine may run
PROMISED = 0.2  # seconds, to calls that then find the engine held

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class Death(BaseException):
    """What no lane survives."""


class FaultyEngine(Engine):
    """The real engine, which fails on one word, and kills its lane on another, once armed.

    While the server starts, it runs every word there is to warm up. Armed, it waits to be let go.
    """

    armed = False
    let_go = threading.Event()
    wide_runs = 0

    def answer(
        self,
        sequences: Sequence[TokenSequence],
        outputs: Sequence[str] | None = None,
        *,
        wide: bool = False,
    ) -> list[dict[str, Float32Array]]:
        if self.armed:
            assert self.let_go.wait(timeout=PATIENCE)
            FaultyEngine.wide_runs += wide
        numbers = {number for sequence in sequences for number in sequence.input_ids}
        if self.armed and FIRST_WORD + WORDS.index(DEADLY) in numbers:
            raise Death
        if self.armed and FIRST_WORD + WORDS.index(POISON) in numbers:
            raise RuntimeError("poison")
        return super().answer(sequences, outputs, wide=wide)


@dataclass(frozen=True, slots=True)
class Call:
    """What one client asks, and when it loses interest."""

    texts: list[str]
    within: float | None
    cancels: int | None  # once so many texts were submitted by all


@dataclass(slots=True)
class Ledger:
    """What the scheduler was given, and what it refused; in texts."""

    submitted: int = 0
    refused: int = 0
    expired_computed: int = 0
    awaited: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def submit(self, texts: int) -> None:
        """Count texts, and wake those who waited for so many."""
        self.submitted += texts
        for least, event in self.awaited:
            if self.submitted >= least:
                event.set()

    async def reached(self, texts: int) -> None:
        """Wait until so many were submitted."""
        event = asyncio.Event()
        self.awaited.append((texts, event))
        self.submit(0)
        await event.wait()


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Counts at the scheduler's door, and looks at what each lane is given."""
    kept = Ledger()
    submit, start = Scheduler.submit, Dispatcher._start

    async def counted(self: Scheduler, sequences: Sequence[TokenSequence], *given: Any) -> Any:
        kept.submit(len(sequences))
        try:
            return await submit(self, sequences, *given)
        except RequestError:
            kept.refused += len(sequences)
            raise

    def checked(self: Dispatcher, batch: Any) -> None:
        kept.expired_computed += sum(
            all(call.deadline <= batch.started for call, _ in request.waiters)
            for request in batch.requests
        )
        start(self, batch)

    monkeypatch.setattr(Scheduler, "submit", counted)
    monkeypatch.setattr(Dispatcher, "_start", checked)
    return kept


def traffic(rng: random.Random) -> list[Call]:
    """Calls of a few texts, some of them equal; some with a deadline, some to be cancelled."""
    texts = [" ".join(rng.choices(HARMLESS, k=rng.randint(1, 60))) for _ in range(800)]
    calls = []
    for number in range(CALLS):
        asked = rng.choices(texts, k=rng.choice((1, 1, 2, 5)))
        if number % 40 == 7:
            asked.append(f"{rng.choice(HARMLESS)} {POISON}")
        if number % 500 == 100:
            asked.append(f"{rng.choice(HARMLESS)} {DEADLY} {rng.choice(HARMLESS)}")
        within = rng.uniform(0.001, 2.0) if number % 5 == 1 else None
        cancels = min(2 * number + rng.randrange(1_000), HELD_TEXTS) if number % 7 == 2 else None
        calls.append(Call(asked, within, cancels))
    return calls


async def ask(
    channel: grpc.aio.Channel, call: Call, ledger: Ledger
) -> inference_pb2.EmbedResponse | grpc.StatusCode:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    pending: Any = stub.Embed(inference_pb2.EmbedRequest(texts=call.texts), timeout=call.within)
    if call.cancels is not None:
        await ledger.reached(call.cancels)
        pending.cancel()
    code: grpc.StatusCode = await pending.code()
    if code is not grpc.StatusCode.OK:
        return code
    response: inference_pb2.EmbedResponse = await pending
    return response


def bits_alone(folder: Path, texts: set[str]) -> dict[str, bytes]:
    """The answer of each text by itself, without a server."""
    manifest = bundle.read_manifest(folder)
    engine = Engine(folder, manifest)
    reader = Reader.of(folder, manifest)
    return {text: engine.embed(reader.sequences([text]))[0].tobytes() for text in sorted(texts)}


def is_guilty(text: str) -> bool:
    return not {POISON, DEADLY}.isdisjoint(text.split())


def check(
    call: Call, outcome: inference_pb2.EmbedResponse | grpc.StatusCode, alone: dict[str, bytes]
) -> None:
    """Each text has its own bits, or an error that it or the call has earned."""
    guilty = [is_guilty(text) for text in call.texts]
    if not isinstance(outcome, inference_pb2.EmbedResponse):
        allowed = {grpc.StatusCode.RESOURCE_EXHAUSTED}  # the queue was full
        if call.within is not None:
            allowed |= {grpc.StatusCode.DEADLINE_EXCEEDED}
        if call.cancels is not None:
            allowed |= {grpc.StatusCode.CANCELLED}
        if all(guilty):
            allowed |= {grpc.StatusCode.INTERNAL}
        assert outcome in allowed
        return
    assert len(outcome.results) == len(call.texts)
    for text, to_blame, result in zip(call.texts, guilty, outcome.results, strict=True):
        if result.HasField("error"):
            late = call.within is not None and result.error.code == DEADLINE_EXCEEDED
            assert late or (to_blame and result.error.code == INTERNAL)
        else:
            assert not to_blame
            assert result.embedding == alone[text]


async def test_nothing_is_lost_and_nothing_is_left(
    tiny_bundle: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text has one outcome, its own bits, and a place in the statistics."""
    calls = traffic(random.Random(11))
    alone = bits_alone(
        tiny_bundle,
        {text for call in calls for text in call.texts if not is_guilty(text)},
    )
    before = asyncio.all_tasks()
    monkeypatch.setattr(startup, "Engine", FaultyEngine)
    settings = Settings(
        loop_run_seconds=0,  # what kills and waits is for lanes
        address="127.0.0.1:0",
        lanes=LANES,
        threads=2,
        profile="efficient",  # threads that spin would take the cores from the clients
        max_batch_tokens=512,
        max_queue_tokens=QUEUE_TOKENS,
        max_queue_seconds=60,
        cache_bytes=CACHE_BYTES,
    )
    server = Server(tiny_bundle, settings)
    await server.load()
    monkeypatch.setattr(FaultyEngine, "armed", True)
    monkeypatch.setattr(FaultyEngine, "let_go", threading.Event())
    running = asyncio.create_task(
        embedding.embed(server.model, texts_of(HARMLESS[:20]))
    )  # on all lanes
    await ledger.reached(20)
    broken = asyncio.create_task(
        embedding.embed(
            server.model, texts_of(HARMLESS[20:80]), caller=CallContext.within(PROMISED)
        )
    )
    await ledger.reached(80)  # more than may run beside the lanes
    over = asyncio.get_running_loop().time() + PROMISED
    port = await server.listen()
    channels = [
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(CONNECTIONS)
    ]
    storm = asyncio.gather(
        *(ask(channels[number % CONNECTIONS], call, ledger) for number, call in enumerate(calls))
    )
    await ledger.reached(HELD_TEXTS)
    asyncio.get_running_loop().call_at(over, FaultyEngine.let_go.set)
    outcomes = await storm
    for call, outcome in zip(calls, outcomes, strict=True):
        check(call, outcome, alone)
    assert all(isinstance(one.outcome, np.ndarray) for one in await running)
    assert all(isinstance(one.outcome, DeadlineMissed) for one in await broken)
    for channel in channels:
        await channel.close()
    scheduler = server.model._scheduler
    gauges = scheduler.gauges()
    assert gauges.lanes_alive == LANES
    await server.drain()

    seen = Counter(type(outcome) for outcome in outcomes)
    assert seen[inference_pb2.EmbedResponse] > CALLS / 6  # a slow machine refuses more
    statistics = scheduler.statistics
    assert ledger.expired_computed == 0
    assert ledger.submitted == (
        statistics.answered
        + statistics.failed
        + statistics.expired
        + statistics.cancelled
        + ledger.refused
    )
    for happened in ("answered", "failed", "cancelled", "deduplicated", "lane_deaths"):
        assert getattr(statistics, happened) > 0
    assert statistics.expired >= 20
    assert statistics.refused["queue_tokens"] > 0
    assert gauges.cache_hits > 0
    assert 0 < gauges.cache_bytes <= CACHE_BYTES
    assert statistics.wide_batches <= FaultyEngine.wide_runs  # some of them failed
    gauges = scheduler.gauges()
    assert (gauges.waiting, gauges.waiting_tokens, gauges.batches_running) == (0, 0, 0)
    assert not scheduler._in_flight
    assert not math.isnan(gauges.predicted_wait)
    left = asyncio.all_tasks() - before
    if left:  # what gRPC itself still winds up
        _, pending = await asyncio.wait(left, timeout=PATIENCE)
        assert not pending
