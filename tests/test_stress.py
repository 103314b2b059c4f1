"""Thousands of calls at once on a real server and engine; some are cancelled, some make it fail."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd import bundle
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.texts import WORDS
from bertd_server import startup
from bertd_server.app import Server
from bertd_server.dispatcher import Dispatcher
from bertd_server.engine import Engine, Float32Array
from bertd_server.errors import RequestError
from bertd_server.packing import TokenSequence
from bertd_server.reading import Reader
from bertd_server.scheduler import Scheduler
from bertd_server.settings import Settings

CALLS = 3_000
CONNECTIONS = 8
POISON, DEADLY = WORDS[:2]
HARMLESS = WORDS[2:]
FIRST_WORD = 5  # the number of the first word; special tokens go before it
LANES = 2

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
LATE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Death(BaseException):
    """What no lane survives."""


class FaultyEngine(Engine):
    """The real engine, which fails on one word, and kills its lane on another, once armed.

    While the server starts, it runs every word there is to warm up.
    """

    armed = False

    def answer(
        self, sequences: Sequence[TokenSequence], *given: Any, **named: Any
    ) -> list[dict[str, Float32Array]]:
        numbers = {number for sequence in sequences for number in sequence.input_ids}
        if self.armed and FIRST_WORD + WORDS.index(DEADLY) in numbers:
            raise Death
        if self.armed and FIRST_WORD + WORDS.index(POISON) in numbers:
            raise RuntimeError("poison")
        return super().answer(sequences, *given, **named)


@dataclass(frozen=True, slots=True)
class Call:
    """What one client asks, and when it loses interest."""

    texts: list[str]
    within: float | None
    turns: int | None  # of the event loop, after which it cancels


@dataclass(slots=True)
class Ledger:
    """What the scheduler was given, and what it refused; in texts."""

    submitted: int = 0
    refused: int = 0
    expired_computed: int = 0


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Counts at the scheduler's door, and looks at what each lane is given."""
    kept = Ledger()
    submit, start = Scheduler.submit, Dispatcher._start

    async def counted(self: Scheduler, sequences: Sequence[TokenSequence], *given: Any) -> Any:
        kept.submitted += len(sequences)
        try:
            return await submit(self, sequences, *given)
        except RequestError:
            kept.refused += len(sequences)
            raise

    def checked(self: Dispatcher, batch: Any) -> None:
        now = self._floor.clock()
        kept.expired_computed += sum(
            all(call.deadline <= now for call, _ in flight.passengers) for flight in batch.flights
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
        turns = rng.randrange(300) if number % 7 == 2 else None
        calls.append(Call(asked, within, turns))
    return calls


async def ask(
    channel: grpc.aio.Channel, call: Call
) -> inference_pb2.EmbedResponse | grpc.StatusCode:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    pending: Any = stub.Embed(inference_pb2.EmbedRequest(texts=call.texts), timeout=call.within)
    if call.turns is not None:
        for _ in range(call.turns):
            await asyncio.sleep(0)
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
        allowed = set()
        if call.within is not None:
            allowed |= LATE
        if call.turns is not None:
            allowed |= {grpc.StatusCode.CANCELLED}
        if all(guilty):
            allowed |= {grpc.StatusCode.INTERNAL}
        assert outcome in allowed
        return
    assert len(outcome.results) == len(call.texts)
    for text, to_blame, result in zip(call.texts, guilty, outcome.results, strict=True):
        if result.HasField("error"):
            late = call.within is not None and result.error.code in {code.value[0] for code in LATE}
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
        address="127.0.0.1:0",
        lanes=LANES,
        threads=1,
        max_batch_tokens=512,
        max_queue_tokens=10**7,
        max_queue_seconds=10**6,
    )
    server = Server(tiny_bundle, settings)
    monkeypatch.setattr(FaultyEngine, "armed", True)
    port = await server.start()
    channels = [
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(CONNECTIONS)
    ]
    outcomes = await asyncio.gather(
        *(ask(channels[number % CONNECTIONS], call) for number, call in enumerate(calls))
    )
    for call, outcome in zip(calls, outcomes, strict=True):
        check(call, outcome, alone)
    for channel in channels:
        await channel.close()
    scheduler = server.model._scheduler
    gauges = scheduler.gauges()
    assert gauges.lanes_alive == LANES
    await server.drain()

    seen = Counter(type(outcome) for outcome in outcomes)
    assert seen[inference_pb2.EmbedResponse] > CALLS / 2
    statistics = scheduler.statistics
    assert ledger.expired_computed == 0
    assert ledger.submitted == (
        statistics.answered
        + statistics.failed
        + statistics.expired
        + statistics.cancelled
        + ledger.refused
    )
    assert min(statistics.answered, statistics.failed) > 0  # who cancels may come too late
    assert statistics.deduplicated > 0
    assert statistics.lane_deaths > 0
    gauges = scheduler.gauges()
    assert (gauges.waiting, gauges.waiting_tokens, gauges.batches_running) == (0, 0, 0)
    assert not scheduler._room._flights
    assert not math.isnan(gauges.predicted_wait)
    left = asyncio.all_tasks() - before
    if left:  # what gRPC itself still winds up
        _, pending = await asyncio.wait(left, timeout=10)
        assert not pending
