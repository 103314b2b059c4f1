"""The life of a server in this process: signs of life, reloads, the watch, how a drain ends."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd import bundle
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_server.config.reloading import Reloading
from bertd_server.config.settings import RELOADABLE, Settings
from bertd_server.models import startup
from bertd_server.models.startup import ReadyEngine
from bertd_server.process.lifecycle import Stops
from bertd_server.process.systemd import SUPERVISOR, Manager, manager
from bertd_server.process.watchdog import Watchdog, resident_bytes
from bertd_server.serving.server import Server
from bertd_server.system.exits import Exit
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.held import Clock, HeldEngine, scheduler, sequences
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from helpers.running import quick_settings


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd gives a service to talk to, of both kinds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = str(tmp_path / "n") if request.param == "path" else f"\0bertd-test-{os.getpid()}"
        heard.bind(name)
        heard.setblocking(False)
        yield heard


def environment(heard: socket.socket, **more: str) -> dict[str, str]:
    name = heard.getsockname()
    path = name if isinstance(name, str) else "@" + name[1:].decode()
    return {"NOTIFY_SOCKET": path, **more}


async def test_systemd_hears_what_happens_while_all_is_well(listening: socket.socket) -> None:
    """Each message is one datagram; signs of life end with health; no child of ours inherits."""
    given = environment(listening, WATCHDOG_USEC="2000", WATCHDOG_PID=str(os.getpid()))
    told = manager(given)
    assert given == {}
    assert told.watchdog_seconds == 0.002
    told.ready("serving\ntiny")
    told.reloading()
    told.stopping("draining")
    assert listening.recv(999) == b"READY=1\nSTATUS=serving tiny"
    reloading, usec = listening.recv(999).split(b"\nMONOTONIC_USEC=")
    assert (reloading, int(usec) > 0) == (b"RELOADING=1", True)
    assert listening.recv(999) == b"STOPPING=1\nSTATUS=draining"

    asked = asyncio.Event()
    answers = iter([True, True, False])

    def healthy() -> bool:
        well = next(answers, False)
        if not well:
            asked.set()
        return well

    told.watch(healthy)
    await asked.wait()
    assert [listening.recv(999) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    with pytest.raises(BlockingIOError):
        listening.recv(999)
    told.close()


def test_a_signal_that_comes_twice_at_once_counts_once() -> None:
    """As `timeout` sends it; another one, or the same one later, is a second signal."""
    it = Stops()
    came = [(15, 0.0), (15, 0.05), (2, 0.06), (15, 0.5), (2, 0.6)]
    assert [it.counts(*each) for each in came] == [True, False, True, True, True]


def test_without_a_manager_nothing_is_opened(tmp_path: Path) -> None:
    """Nor where it does not listen, or where the signs of life are another process's."""
    assert type(manager({})) is Manager
    assert type(manager({"NOTIFY_SOCKET": str(tmp_path / "none")})) is Manager
    assert type(manager({SUPERVISOR: "99999"})) is Manager
    assert manager({"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "1"}).watchdog_seconds == 0


async def test_the_end_of_the_supervisor_is_noticed() -> None:
    """Its stream has each message with a null byte after it."""
    ours, its = socket.socketpair()
    told = manager({SUPERVISOR: str(its.detach())})
    gone = asyncio.Event()
    told.when_gone(gone.set)
    told.ready("x")
    assert ours.recv(99) == b"READY=1\nSTATUS=x\0"
    ours.close()
    await gone.wait()
    told.close()


async def test_a_reload_keeps_what_cannot_be_read() -> None:
    """Parts are independent; a setting that needs a restart keeps its value."""
    old = Settings(lanes=1, max_queue_tokens=10)
    applied: list[int] = []
    keys = ["old"]

    async def read_keys() -> None:
        keys[0] = "new"

    def read_certificates() -> None:
        raise OSError("no such certificate")

    it = Reloading(old)
    it.on_settings(lambda settings: applied.append(settings.max_queue_tokens))
    it.add("certificates", read_certificates)
    it.add("keys", read_keys)
    it.reread = lambda: Settings(lanes=2, max_queue_tokens=20)
    outcome = await it.reload()
    assert (outcome.reloaded, outcome.failed) == (["keys"], {"certificates": "no such certificate"})
    assert (outcome.changed, outcome.needs_restart) == (["max_queue_tokens"], ["lanes"])
    assert (it.settings.lanes, applied, keys) == (1, [20], ["new"])

    def broken() -> Settings:
        raise ValueError("line 3")

    it.reread = broken
    assert (await it.reload()).failed.keys() == {"settings", "certificates"}
    assert (it.settings.max_queue_tokens, applied) == (20, [20])


async def test_every_reloadable_setting_takes_effect(tiny_bundle: Path) -> None:
    """Where it is used: in the model's limits, and in the drain's."""
    server = Server(tiny_bundle, quick_settings())
    await server.load()
    new = dict.fromkeys(RELOADABLE, 7) | {"drain_delay_seconds": 0, "log_level": "info"}
    server.reloading.reread = lambda: quick_settings(**new)
    outcome = await server.reloading.reload()
    assert {*outcome.changed, "drain_delay_seconds", "log_level"} == RELOADABLE
    assert outcome.needs_restart == outcome.reloaded == []
    limits = server.model.limits
    assert (limits.max_queue_tokens, limits.max_queue_seconds) == (7, 7.0)
    assert server.model._texts.options.max_queue_characters == 7
    assert await server.drain() is Exit.FINISHED


async def test_a_batch_that_runs_too_long_is_found() -> None:
    """Too long is ten predictions, and the setting; a process that stood still is forgiven."""
    clock = Clock()
    engine = HeldEngine()
    it = scheduler(engine, clock)
    watch = Watchdog(lambda: [_Running(it)], seconds=4, memory_limit=0, clock=clock)
    call = asyncio.create_task(it.submit(sequences(3)))
    await engine.started()
    assert watch.look() is None
    clock.now += 100  # nobody looked meanwhile: the machine slept
    assert watch.look() is None
    for _ in range(4):
        clock.now += 1
        assert watch.look() is None
    clock.now += 0.5
    found = watch.look()
    assert found is not None
    assert found.what == "a lane is stuck"
    assert (found.facts["tokens"], found.facts["ran_seconds"]) == (3, 4.5)
    engine.let_go()
    await call
    assert watch.look() is None
    await it.drain()


class _Running:
    def __init__(self, it: Any) -> None:
        self.running = it.running


async def test_memory_beyond_its_limit_twice_in_a_row_is_found() -> None:
    """A tenth more is left to the allocator; the watch then ends."""
    amounts = iter([109, 111, 109, 111, 111])
    clock = Clock()
    watch = Watchdog(
        list,
        seconds=0,
        memory_limit=100,
        clock=clock,
        resident=lambda: next(amounts),
    )
    assert [watch.look() is not None for _ in range(5)] == [False] * 4 + [True]
    block = b"x" * 2**24
    quick, close = resident_bytes(2**60)(), resident_bytes(0)()
    assert min(quick, close) > len(block)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_drain_says_how_it_ended(tiny_bundle: Path, *, ends: bool) -> None:
    """Calls were cancelled when its time was up; or a batch never ended."""
    running, cancelled = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Held:
        """The tiny engine, whose runs end once the call is cancelled."""

        def __init__(self, engine: ReadyEngine) -> None:
            self._engine = engine
            self.lanes, self.provider = engine.lanes, engine.provider
            self.max_batch_tokens = engine.max_batch_tokens

        def answer(self, batch: Sequence[Any], outputs: Any = None, *, wide: bool = False) -> Any:
            running.set()
            assert cancelled.wait(PATIENCE)
            return self._engine.answer(batch, outputs, wide=wide)

    def start(folder: Path, manifest: bundle.Manifest, *options: Any) -> tuple[ReadyEngine, Any]:
        engine, measured = startup.start(folder, manifest, *options)
        return Held(engine), measured

    server = Server(tiny_bundle, quick_settings(drain_seconds=0, loop_run_seconds=0), start)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Embed(inference_pb2.EmbedRequest(texts=["hello"]))
        asked = asyncio.ensure_future(_code(call))
        await loop.run_in_executor(None, running.wait)
        drain = asyncio.ensure_future(server.drain())
        assert await asked is grpc.StatusCode.UNAVAILABLE
        assert (
            await call.details()
            == "the server stopped before it had an answer: send the text again"
        )
        if ends:
            cancelled.set()
        assert await drain is (Exit.CANCELLED if ends else Exit.NEVER_ENDED)
    cancelled.set()


def test_the_operators_page_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"\n| {code.value} | " in page for code in Exit)


async def _code(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.OK
