"""Minutes of random traffic, with the server's memory, errors and bits watched.

::

    workers ──calls of every kind──> server        every status has to be one that the call allows
       │                                │          a text always has the bits of its first answer
       └── counts, first bits           └── RSS, once a second: must not grow once warm
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import grpc
import psutil
from bertd import bundle
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_server.system import cpu
from tokenizers import Tokenizer

from bertd_bench.contestants.eager import ServerProcess, server_process
from bertd_bench.load import mix

GROWTH_LIMIT = 0.05
_WORKERS = 24
_TEXTS = 4_096
_WARM = 0.25  # share of the time after which memory should have settled
_LONGEST_PAUSE = 0.2  # seconds
_LONGEST_DEADLINE = 2.0
_CALLS = (1, 1, 1, 1, 2, 3, 5, 8, 16, 64, 256)  # texts of a call
_ALLOWED = {
    "plain": {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED},
    "deadline": {
        grpc.StatusCode.OK,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    },
    "cancel": {
        grpc.StatusCode.OK,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    },
    "empty": {grpc.StatusCode.INVALID_ARGUMENT},
    "long": {grpc.StatusCode.INVALID_ARGUMENT},
}
_WEIGHTS = {"plain": 60, "deadline": 25, "cancel": 10, "empty": 3, "long": 2}

Stub: TypeAlias = "inference_pb2_grpc.InferenceServiceAsyncStub"  # in the stubs alone


@dataclass(slots=True)
class Soak:
    """What was seen.

    Attributes:
        calls: by kind and status.
        texts: that were answered.
        wrong: what should not have happened.
        memory: bytes resident, once a second.
    """

    calls: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Most memory in the last quarter over most in the first one after warm-up, less one."""
        warm = self.memory[int(len(self.memory) * _WARM) :]
        quarter = max(1, len(warm) // 4)
        return max(warm[-quarter:]) / max(warm[:quarter]) - 1

    @property
    def passed(self) -> bool:
        """Nothing was wrong, and memory has settled."""
        return not self.wrong and self.growth < GROWTH_LIMIT


def soak(
    folder: Path,
    *,
    seconds: float,
    threads: int | None,
    settings: Mapping[str, str],
    progress: Callable[[str], None],
) -> Soak:
    """Put random traffic on a server of a bundle.

    Raises:
        BenchError: the server did not start.
    """
    tokenizer = Tokenizer.from_file(str(folder / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(0)  # noqa: S311 - traffic is no secret
    texts = mix.build_texts(tokenizer, _TEXTS, rng)
    with server_process(folder, threads or cpu.usable_threads(), settings) as server:
        server.wait_until_listening()
        return asyncio.run(_soak(server, texts, seconds, progress))


async def _soak(
    server: ServerProcess, texts: Sequence[str], seconds: float, progress: Callable[[str], None]
) -> Soak:
    seen = Soak()
    bits: dict[str, bytes] = {}
    end = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Stub = inference_pb2_grpc.InferenceServiceStub(channel)
        workers = [
            asyncio.create_task(_work(stub, texts, random.Random(number), end, seen, bits))  # noqa: S311
            for number in range(_WORKERS)
        ]
        process = psutil.Process(server.process.pid)
        while time.monotonic() < end:
            await asyncio.sleep(min(1.0, max(0.0, end - time.monotonic())))
            if server.process.poll() is not None:
                seen.wrong.append(f"the server ended with {server.process.returncode}")
                break
            seen.memory.append(process.memory_info().rss)
            if len(seen.memory) % 30 == 0:
                progress(
                    f"{len(seen.memory)} s: {sum(seen.calls.values())} calls, "
                    f"{seen.memory[-1] / 2**20:.0f} MiB, {len(seen.wrong)} wrong"
                )
        await asyncio.gather(*workers)
    return seen


async def _work(  # noqa: PLR0913, PLR0917 - one worker's share of the soak
    stub: Stub,
    texts: Sequence[str],
    rng: random.Random,
    end: float,
    seen: Soak,
    bits: dict[str, bytes],
) -> None:
    while time.monotonic() < end:
        (kind,) = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        asked = rng.sample(texts, rng.choice(_CALLS))
        if kind == "empty":
            asked = [" "]
        elif kind == "long":
            asked = ["word " * 20_000]
        timeout = rng.uniform(0.001, _LONGEST_DEADLINE) if kind == "deadline" else None
        call = stub.Embed(inference_pb2.EmbedRequest(texts=asked, prompt_name=""), timeout=timeout)
        if kind == "cancel":
            await asyncio.sleep(rng.uniform(0.0, 0.05))
            call.cancel()
        code = await call.code()
        seen.calls[f"{kind} {code.name}"] += 1
        if code not in _ALLOWED[kind]:
            seen.wrong.append(f"a call of kind {kind} ended with {code.name}")
        if code is grpc.StatusCode.OK:
            _check(asked, await call, kind, seen, bits)
        await asyncio.sleep(rng.uniform(0.0, _LONGEST_PAUSE))


def _check(
    asked: Sequence[str],
    response: inference_pb2.EmbedResponse,
    kind: str,
    seen: Soak,
    bits: dict[str, bytes],
) -> None:
    if len(response.results) != len(asked):
        seen.wrong.append(f"{len(asked)} texts had {len(response.results)} results")
    for text, result in zip(asked, response.results, strict=False):
        if result.HasField("error"):
            if kind != "deadline":
                seen.wrong.append(f"a text of a call of kind {kind}: {result.error.message}")
            continue
        seen.texts += 1
        digest = hashlib.sha256(result.embedding).digest()
        if bits.setdefault(text, digest) != digest:
            seen.wrong.append(f"other bits than before for {text!r}")
