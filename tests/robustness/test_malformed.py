"""A server under malformed requests: each ends with a status that is right for it.

::

    callers ──malformed requests──> server      statuses, and no traceback in its log
       └── one in so many is good      │        a good one has the bits of its first answer
                                       └── RSS: must not grow once warm
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from bertd.v1 import models_pb2, models_pb2_grpc
from helpers.restartable import RestartableServer
from robustness.malformed import Attack, Attacks
from robustness.scale import SCALE, check_memory, patient, served_model, server_of
from robustness.wellformed import INFER, WATCH, Method, Target, infer, methods

REQUESTS = 400 * SCALE
CALLERS = 12
GOOD_EVERY = 50  # requests
SAMPLES = 200  # of memory, in all
HANG = 60.0  # seconds in which any call has to end
OK = grpc.StatusCode.OK
FAULTS = {one.value[0] for one in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)}
BY_PATH = {one.path: one for one in methods()}

Ended: TypeAlias = tuple[grpc.StatusCode, bytes, str]  # status, last response, details


@dataclass(slots=True)
class Seen:
    """Calls by kind and status, what was wrong, and the server's memory in bytes."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    good: list[bytes] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


@patient
def test_malformed_requests_have_statuses_that_are_right_for_them(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = server_of(served_model(request), tmp_path)
    try:
        server.start()
        seen = asyncio.run(besiege(server))
        assert server.running
        assert seen.wrong == []
        assert len(seen.good) == REQUESTS // GOOD_EVERY + 1
        assert len(set(seen.good)) == 1
        assert seen.calls["random bytes", "INVALID_ARGUMENT"]
        assert seen.calls["unknown RPC", "UNIMPLEMENTED"]
        assert "Traceback" not in (tmp_path / "serve.log").read_text(errors="replace")
        check_memory(seen.memory, statistics.median)
    finally:
        server.close()


def test_a_seed_gives_the_same_malformed_requests_again() -> None:
    """And nearly every RPC meets some of them."""
    target = Target("tiny", "feature-extraction", "", 320)
    first, again = (Attacks(methods(), target, 3) for _ in range(2))
    attacks = [first[number] for number in range(500)]
    assert attacks == [again[number] for number in range(500)]
    assert len({attack.path for attack in attacks} & BY_PATH.keys()) > 45


async def besiege(server: RestartableServer) -> Seen:
    """Send all requests, from several callers at once."""
    seen = Seen()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address) as threads:
        async with grpc.aio.insecure_channel(server.address, options) as channel:
            target = await served_target(channel)
            attacks = Attacks(methods(), target, seed=0)
            good = Attack("good", INFER, [infer(target).SerializeToString()], frozenset())

            async def work(numbers: Iterator[int]) -> None:
                for number in numbers:
                    if not server.running:
                        return
                    attack = attacks[number]
                    if len(attack.messages) == 1:
                        ended = await send(channel, attack)
                    else:
                        ended = await asyncio.to_thread(stream, threads, attack)
                    seen.calls[attack.kind, ended[0].name] += 1
                    if said := judged(attack, ended):
                        named = f"request {number}, {attack.kind}, {attack.path}"
                        seen.wrong.append(f"{named}: {said}")
                    if number % GOOD_EVERY == 0:
                        await ask(f"request {number}")
                    if number % max(1, REQUESTS // SAMPLES) == 0:
                        seen.memory.append(server.resident_bytes())

            async def ask(after: str) -> None:
                code, last, details = await send(channel, good)
                seen.good.append(last)
                if code is not OK:
                    seen.wrong.append(f"a good request after {after}: {code.name} {details[:200]}")

            numbers = iter(range(REQUESTS))
            await asyncio.gather(*(work(numbers) for _ in range(CALLERS)))
            await ask("the end")
    return seen


async def served_target(channel: grpc.aio.Channel) -> Target:
    stub: Any = models_pb2_grpc.ModelServiceStub(channel)
    listed = await stub.ListModels(models_pb2.ListModelsRequest(), timeout=HANG)
    model = listed.models[0]
    return Target(model.name, model.task, model.mask_token, model.vocab_size)


def judged(attack: Attack, ended: Ended) -> str:
    """What is wrong with the end of a call; empty if nothing is."""
    code, last, details = ended
    if code not in attack.allowed:
        return f"{code.name} {details[:200]}"
    if attack.must_fail and code is OK and not failed(BY_PATH[attack.path], last):
        return "the last response has no error"
    if code is OK and last and (codes := result_codes(BY_PATH[attack.path], last) & FAULTS):
        return f"a result has the error {codes}"
    return ""


async def send(channel: grpc.aio.Channel, attack: Attack) -> Ended:
    """Send a request of one message: on the wire, a stream of one is the same."""
    timeout = HANG if attack.timeout is None else attack.timeout
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
                return OK, last, ""
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    return await call.code(), last, await call.details() or ""


def stream(channel: grpc.Channel, attack: Attack) -> Ended:
    """Send a stream of any number of messages.

    By a thread: the asyncio client reports INTERNAL, of its own, if the server ends a call with
    whatever status while it still writes.
    """
    rpc: Any = channel.stream_stream(attack.path)
    call = rpc(iter(attack.messages), timeout=HANG)
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


def result_codes(method: Method, data: bytes) -> set[int]:
    """Codes of the errors of single results, for responses that have such."""
    response: Any = method.answer.FromString(data)
    results = getattr(response, "results", ())
    return {one.error.code for one in results if hasattr(one, "error")} - {0}


def failed(method: Method, data: bytes) -> bool:
    """Whether a response of a stream that answers errors in its responses holds one."""
    response: Any = method.answer.FromString(data)
    if hasattr(response, "error_message"):
        return bool(response.error_message)
    if hasattr(response, "error_response"):
        return bool(response.HasField("error_response"))
    return any(result.HasField("error") for result in response.results)
