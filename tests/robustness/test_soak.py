"""Random traffic for a while: every status is one that its call allows, every text has its bits.

::

    workers ──calls of every kind──> server        a text always has the bits of its first answer
                                       └── RSS: must not grow once warm
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.load import traffic
from helpers.restartable import RestartableServer
from robustness.scale import SCALE, check_memory, patient, served_model, server_of

SECONDS = 3.0 * SCALE
WORKERS = 24
TEXTS = 4_096
LONGEST_PAUSE = 0.2  # seconds
LONGEST_DEADLINE = 2.0
CALLS = (1, 1, 1, 1, 2, 3, 5, 8, 16, 64, 256)  # texts of a call
WEIGHTS = {"plain": 60, "deadline": 25, "cancel": 10, "empty": 3, "long": 2}
ALLOWED = {
    "plain": {"OK", "RESOURCE_EXHAUSTED"},
    "deadline": {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"},
    "cancel": {"OK", "RESOURCE_EXHAUSTED", "CANCELLED"},
    "empty": {"INVALID_ARGUMENT"},
    "long": {"INVALID_ARGUMENT"},
}


@dataclass(slots=True)
class Seen:
    """Calls by kind and status, digests of the first vectors, and what was wrong."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    digests: dict[str, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


@patient
def test_random_traffic_is_answered_rightly(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = served_model(request)
    texts = traffic.texts_for(folder, TEXTS)
    server = server_of(folder, tmp_path)
    try:
        server.start()
        seen = asyncio.run(soak(server, texts))
        assert server.running
        assert seen.wrong == []
        assert seen.calls["plain", "OK"]
        check_memory(seen.memory)
    finally:
        server.close()


async def soak(server: RestartableServer, texts: Sequence[str]) -> Seen:
    seen = Seen()
    end = time.monotonic() + SECONDS
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        workers = asyncio.gather(
            *(work(stub, texts, random.Random(number), end, seen) for number in range(WORKERS))
        )
        while time.monotonic() < end and server.running:
            seen.memory.append(server.resident_bytes())
            await asyncio.sleep(min(1.0, max(0.0, end - time.monotonic())))
        await workers
    return seen


async def work(stub: Any, texts: Sequence[str], rng: random.Random, end: float, seen: Seen) -> None:
    while time.monotonic() < end:
        (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        asked = rng.sample(texts, rng.choice(CALLS))
        if kind == "empty":
            asked = [" "]
        elif kind == "long":
            asked = ["word " * 20_000]
        timeout = rng.uniform(0.001, LONGEST_DEADLINE) if kind == "deadline" else None
        call = stub.Embed(inference_pb2.EmbedRequest(texts=asked, prompt_name=""), timeout=timeout)
        if kind == "cancel":
            await asyncio.sleep(rng.uniform(0.0, 0.05))
            call.cancel()
        code = await call.code()
        seen.calls[kind, code.name] += 1
        if code.name not in ALLOWED[kind]:
            seen.wrong.append(f"a call of kind {kind} ended with {code.name}")
        if code is grpc.StatusCode.OK:
            check(asked, await call, kind, seen)
        await asyncio.sleep(rng.uniform(0.0, LONGEST_PAUSE))


def check(asked: Sequence[str], response: Any, kind: str, seen: Seen) -> None:
    if len(response.results) != len(asked):
        seen.wrong.append(f"{len(asked)} texts had {len(response.results)} results")
    for text, result in zip(asked, response.results, strict=False):
        if result.HasField("error"):
            if kind != "deadline":
                seen.wrong.append(f"a text of a call of kind {kind}: {result.error.message}")
            continue
        digest = hashlib.sha256(result.embedding).digest()
        if seen.digests.setdefault(text, digest) != digest:
            seen.wrong.append(f"other bits than before for {text!r}")
