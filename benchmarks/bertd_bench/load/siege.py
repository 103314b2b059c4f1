"""A server under malformed requests, with its statuses, memory and good answers watched.

::

    callers ──malformed requests──> server      each ends, with a status that is right for it
       │ one in so many is good        │        a good one has the bits of its first answer
       └── counts                      └── RSS: must not grow once warm
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import psutil
from bertd.v1 import models_pb2, models_pb2_grpc
from bertd_server.system import cpu

from bertd_bench.contestants.eager import ServerProcess, server_process
from bertd_bench.load.malformed import Attack, Attacks
from bertd_bench.load.soak import GROWTH_LIMIT
from bertd_bench.load.wellformed import INFER, WATCH, Method, Target, infer, methods

_CALLERS = 12
_GOOD_EVERY = 50  # requests
_SAMPLES = 200  # of memory, in all
_HANG = 60.0  # seconds in which any call has to end
Ended: TypeAlias = tuple[grpc.StatusCode, bytes, str]  # status, last response, details

_OK = grpc.StatusCode.OK
_FAULTS = {one.value[0] for one in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)}
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(slots=True)
class Siege:
    """What was seen.

    Attributes:
        calls: malformed ones by kind and status.
        good: requests answered in between.
        wrong: what should not have happened.
        memory: bytes resident, at even distances of requests.
    """

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    good: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Median of memory in the last quarter over that in the first one after warm-up, less one.

        What messages in flight take is a part of it that comes and goes: one of 64 MB is among
        them. A leak raises the median too.
        """
        first, last = self._quarters()
        return statistics.median(last) / statistics.median(first) - 1

    @property
    def growth_of_peak(self) -> float:
        """The same of the largest in these quarters."""
        first, last = self._quarters()
        return max(last) / max(first) - 1

    def _quarters(self) -> tuple[list[int], list[int]]:
        warm = self.memory[len(self.memory) // 4 :]
        quarter = max(1, len(warm) // 4)
        return warm[:quarter], warm[-quarter:]

    @property
    def passed(self) -> bool:
        """Nothing was wrong, and memory has settled."""
        return not self.wrong and self.growth < GROWTH_LIMIT


def besiege(  # noqa: PLR0913 - as the command has them
    folder: Path,
    *,
    requests: int,
    seed: int,
    threads: int | None,
    settings: Mapping[str, str],
    progress: Callable[[str], None],
) -> Siege:
    """Send malformed requests to a server of a bundle.

    Raises:
        BenchError: the server did not start.
    """
    with server_process(folder, threads or cpu.usable_threads(), settings) as server:
        server.wait_until_listening()
        seen = asyncio.run(_Besieger(server, requests, progress).run(seed))
        log = server.log.read_text(encoding="utf-8", errors="replace")
        place = log.find(_TRACEBACK)
        if place >= 0:
            seen.wrong.append(
                f"the server's log has a traceback:\n{log[max(0, place - 300) : place + 3000]}"
            )
        return seen


class _Besieger:
    """The callers of one server."""

    def __init__(
        self, server: ServerProcess, requests: int, progress: Callable[[str], None]
    ) -> None:
        self._server = server
        self._process = psutil.Process(server.process.pid)
        self._requests = requests
        self._progress = progress
        self._seen = Siege()
        self._methods = methods()
        self._by_path = {one.path: one for one in self._methods}
        self._threads = grpc.insecure_channel(server.address)
        self._bits: bytes | None = None

    async def run(self, seed: int) -> Siege:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        address = self._server.address
        async with grpc.aio.insecure_channel(address, options) as channel:
            target = await _target(channel)
            attacks = Attacks(self._methods, target, seed)
            numbers = iter(range(self._requests))
            good = infer(target).SerializeToString()
            await asyncio.gather(
                *(self._work(channel, attacks, good, numbers) for _ in range(_CALLERS))
            )
            await self._ask(channel, good, "the end")
        self._threads.close()
        return self._seen

    async def _work(
        self, channel: grpc.aio.Channel, attacks: Attacks, good: bytes, numbers: Iterable[int]
    ) -> None:
        for number in numbers:
            if self._server.process.poll() is not None:
                break
            await self._attack(channel, number, attacks[number])
            if number % _GOOD_EVERY == 0:
                await self._ask(channel, good, f"request {number}")
            if number % max(1, self._requests // _SAMPLES) == 0:
                self._sample(number)

    def _sample(self, number: int) -> None:
        seen = self._seen
        seen.memory.append(self._process.memory_info().rss)
        if len(seen.memory) % 20 == 0:
            self._progress(
                f"{number:,} requests: {seen.memory[-1] / 2**20:.0f} MiB, {len(seen.wrong)} wrong"
            )

    async def _attack(self, channel: grpc.aio.Channel, number: int, attack: Attack) -> None:
        if len(attack.messages) == 1:
            code, last, details = await _send(channel, attack)
        else:
            code, last, details = await asyncio.to_thread(_stream, self._threads, attack)
        self._seen.calls[attack.kind, code.name] += 1
        named = f"request {number}, {attack.kind}, {attack.path}"
        if code not in attack.allowed:
            self._seen.wrong.append(f"{named}: {code.name} {details[:200]}")
        elif attack.must_fail and code is _OK and not _failed(self._by_path[attack.path], last):
            self._seen.wrong.append(f"{named}: the last response has no error")
        elif code is _OK and last and (codes := _codes(self._by_path[attack.path], last) & _FAULTS):
            self._seen.wrong.append(f"{named}: a result has the error {codes}")

    async def _ask(self, channel: grpc.aio.Channel, good: bytes, after: str) -> None:
        """Send a good request: its answer has the bits of the first one."""
        code, last, details = await _send(channel, Attack("good", INFER, [good], frozenset()))
        self._seen.good += 1
        if code is not _OK:
            self._seen.wrong.append(f"a good request after {after}: {code.name} {details[:200]}")
            return
        if self._bits is None:
            self._bits = last
        if last != self._bits:
            self._seen.wrong.append(f"a good request after {after}: other bits than before")


async def _target(channel: grpc.aio.Channel) -> Target:
    stub: Any = models_pb2_grpc.ModelServiceStub(channel)
    listed = await stub.ListModels(models_pb2.ListModelsRequest(), timeout=_HANG)
    model = listed.models[0]
    return Target(model.name, model.task, model.mask_token, model.vocab_size)


async def _send(channel: grpc.aio.Channel, attack: Attack) -> Ended:
    """Send a request of one message: on the wire, a stream of one is the same."""
    timeout = _HANG if attack.timeout is None else attack.timeout
    rpc: Any = channel.unary_stream(attack.path)
    call = rpc(attack.messages[0], timeout=timeout)
    last = b""
    if attack.leaves is not None:
        await asyncio.sleep(attack.leaves)
        call.cancel()
    try:
        async for response in call:
            last = response
            if attack.path == WATCH:  # it would go on for as long as the server lives
                call.cancel()
                return _OK, last, ""
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    return await call.code(), last, await call.details() or ""


def _stream(channel: grpc.Channel, attack: Attack) -> Ended:
    """Send a stream of any number of messages.

    By a thread: the asyncio client reports INTERNAL, of its own, if the server ends a call with
    whatever status while it still writes.
    """
    rpc: Any = channel.stream_stream(attack.path)
    call = rpc(iter(attack.messages), timeout=_HANG)
    last = b""
    if attack.leaves is not None:
        time.sleep(attack.leaves)
        call.cancel()
    try:
        for response in call:
            last = response
    except grpc.RpcError:
        pass
    return call.code(), last, call.details() or ""


def _codes(method: Method, data: bytes) -> set[int]:
    """Codes of the errors of single results, for responses that have such."""
    response: Any = method.answer.FromString(data)
    results = getattr(response, "results", ())
    return {one.error.code for one in results if hasattr(one, "error")} - {0}


def _failed(method: Method, data: bytes) -> bool:
    """Whether a response of a stream that answers errors in its responses holds one."""
    response: Any = method.answer.FromString(data)
    if hasattr(response, "error_message"):
        return bool(response.error_message)
    if hasattr(response, "error_response"):
        return bool(response.HasField("error_response"))
    return any(result.HasField("error") for result in response.results)


def by_status(calls: Mapping[tuple[str, str], int]) -> list[tuple[str, int]]:
    """Malformed requests by status, the most frequent first."""
    counts: Counter[str] = Counter()
    for (_, status), count in calls.items():
        counts[status] += count
    return counts.most_common()
