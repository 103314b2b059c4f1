"""Models inside somebody else's process: what they answer, and what they leave alone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bertd_server
import grpc
import numpy as np
import pytest
import structlog
from bertd import bundle
from bertd.bundle import Task
from bertd_client import AsyncClient
from bertd_client.calling.answered import Answered
from bertd_server import OpenModel, OpenModels, SyncModel
from bertd_server.config.settings import Settings
from bertd_server.errors import (
    DeadlineMissed,
    Draining,
    InvalidInput,
    RequestError,
    UnknownModel,
    WrongTask,
)
from bertd_server.inside import SettingsError
from bertd_server.inside.options import OpenOptions
from bertd_server.system.logs import get_logger
from helpers.patience import PATIENCE
from helpers.rpcs import CALLS, Asked

QUICK: OpenOptions = {
    "warmup_seconds": 0,
    "calibration_seconds": 0.05,
    "lanes": 1,
    "threads": 1,
    "lane_niceness": 0,
    "max_queue_seconds": PATIENCE,
}
NOT_FOR_THREADS = {"ask", "statistics", "gauges"}  # they belong to the loop
OTHERS: set[threading.Thread] = set()
TEXTS = ["the cat sat on the mat", "서울은 비가 온다 🙂"]
PAIRS = [("who sat?", "the cat sat"), ("where?", "on the mat")]


@asynccontextmanager
async def hosting(models: OpenModels) -> AsyncIterator[tuple[str, bertd_server.HostedServices]]:
    """A server of the host's own with our services; it stops as docs/inside.md says."""
    server = grpc.aio.server(interceptors=[bertd_server.interceptor()])
    services = bertd_server.HostedServices(models)
    services.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", services
    services.drain()
    await server.stop(10)


async def test_every_task_answers_as_over_grpc(
    tiny_bundle: Path, task_bundle: Callable[[Task], Path]
) -> None:
    """The same models, asked in process and through a host's server, on lanes that all share."""
    tasks: list[Task] = [
        "zero-shot-classification",  # for classify too
        "text-ranking",
        "token-classification",
        "question-answering",
        "fill-mask",
    ]
    async with bertd_server.open_models(**QUICK) as models:
        of = {task: await models.load(task_bundle(task), name=task) for task in tasks}
        of["feature-extraction"] = await models.load(tiny_bundle, name="feature-extraction")
        masked = [f"the {of['fill-mask'].mask_token} sat"]
        async with hosting(models) as (address, services), AsyncClient(address) as client:
            assert services.serving
            assert "bertd.v1.InferenceService" in services.names

            async def both(task: Task, call: str, *args: Any, **options: Any) -> tuple[Any, Any]:
                mine = getattr(of[task], call)(*args, **options)
                theirs = getattr(client, call)(*args, model=task, **options)
                return tuple(await asyncio.gather(mine, theirs))

            mine, theirs = await both("feature-extraction", "embed", TEXTS)
            assert mine.dtype == np.float32
            np.testing.assert_array_equal(mine, theirs)
            mine, theirs = await both("feature-extraction", "embed_tokens", TEXTS)
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(one.vectors, other.vectors)
            mine, theirs = await both("zero-shot-classification", "classify", [*TEXTS, PAIRS[0]])
            assert_scores(mine, [one.labels for one in theirs])
            mine, theirs = await both(
                "zero-shot-classification", "classify_zero_shot", TEXTS, ["rain", "cats"]
            )
            assert_scores(mine, [one.labels for one in theirs])
            # Only the documents are cut, here as over gRPC.
            mine, theirs = await both(
                "text-ranking",
                "rerank",
                "the cat " * 20,
                ["rain " * 400, *TEXTS],
                long_text="truncate",
            )
            assert [(one.index, one.score) for one in mine] == [
                (one.index, one.score) for one in theirs
            ]
            mine, theirs = await both(
                "token-classification", "tag", TEXTS, aggregation="none", include_outside=True
            )
            for one, other in zip(mine, theirs, strict=True):
                assert [e.label for e in one] == [e.label for e in other.entities]
            mine, theirs = await both("question-answering", "answer", PAIRS, top_k=2)
            for one, other in zip(mine, theirs, strict=True):
                assert [span.score for span in one] == [span.score for span in other.spans]
            mine, theirs = await both("fill-mask", "fill_mask", masked, top_k=3)
            assert [c.score for c in mine[0][0].candidates] == [
                c.score for c in theirs[0].masks[0].candidates
            ]
            mine, theirs = await both("feature-extraction", "tokenize", [*TEXTS, PAIRS[0]])
            assert [[t.id for t in one] for one in mine] == [[t.id for t in one] for one in theirs]
            mine, theirs = await both("feature-extraction", "count_tokens", TEXTS)
            assert mine == theirs
            ids = [[token.id for token in one] for one in await of["fill-mask"].tokenize(TEXTS)]
            mine, theirs = await both("fill-mask", "detokenize", ids)
            assert mine == theirs
        (weights,) = await of["fill-mask"].embed_sparse(TEXTS[:1])
        assert weights.indices.shape == weights.values.shape
        with pytest.raises(WrongTask):
            await of["fill-mask"].embed(TEXTS)


@pytest.mark.parametrize("asked", CALLS, ids=lambda asked: asked.method)
async def test_every_call_answers_as_over_grpc(
    asked: Asked, task_bundle: Callable[[Task], Path]
) -> None:
    """What the client gives, less how it came about; errors in the places of their inputs."""
    options = dict(asked.options)
    best = options.pop("top_n", None)  # a program takes as many as it wants
    async with (
        bertd_server.open_models(**QUICK) as models,
        hosting(models) as (address, _),
        AsyncClient(address) as client,
    ):
        model = await models.load(task_bundle(asked.task), name=asked.task)
        mine = await getattr(model, asked.method)(*asked.arguments, **options)
        theirs = await getattr(client, asked.method)(*asked.arguments, **asked.options)
        assert_same(mine[:best], theirs)
        if f"{asked.method}_each" in dir(model):
            replies = await getattr(model, f"{asked.method}_each")(*asked.bad)
            refused = [isinstance(reply.outcome, RequestError) for reply in replies]
            assert refused == [False, True, False]


def assert_same(mine: Any, theirs: Any) -> None:
    """All that both sides tell of the same thing."""
    if isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(mine, theirs)
    elif isinstance(theirs, list | tuple):
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif dataclasses.is_dataclass(theirs):
        how = {field.name for field in dataclasses.fields(Answered)}
        told = {one.name for one in dataclasses.fields(theirs) if one.name not in how}
        if not told & {*dir(mine)}:  # it only holds the answer
            (name,) = told
            assert_same(mine, getattr(theirs, name))
        for name in told & {*dir(mine)}:
            assert_same(getattr(mine, name), getattr(theirs, name))
    else:
        assert mine == theirs


def assert_scores(mine: Any, theirs: Any) -> None:
    assert [[(s.label, s.score) for s in one] for one in mine] == [
        [(s.label, s.score) for s in one] for one in theirs
    ]


async def test_each_input_has_its_own_outcome(tiny_bundle: Path) -> None:
    async with bertd_server.open_model(tiny_bundle, **QUICK) as model:
        good, empty = await model.embed_each(["the cat", " "])
        assert isinstance(good.outcome, np.ndarray)
        assert isinstance(empty.outcome, InvalidInput)
        with pytest.raises(InvalidInput) as refused:
            await model.embed(["the cat", " "])
        assert refused.value.field == "texts[1]"
        assert (await model.embed([])).shape == (0, model.manifest.dimensions)
        with pytest.raises(DeadlineMissed):
            await model.embed(TEXTS, timeout=0)
        long = "the cat " * 400
        with pytest.raises(InvalidInput, match='long_text="truncate"'):
            await model.embed([long])
        await model.embed([long], long_text="window", stride=4, priority="bulk")
        with pytest.raises(TypeError, match="texts is one text"):
            await model.embed("the cat")
        with pytest.raises(InvalidInput, match="interactive, bulk"):
            await model.embed(TEXTS, priority="soon")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"inputs\[0\] is int"):
            await model.tokenize([1])  # type: ignore[list-item]


async def test_another_takes_its_place_while_it_answers(tiny_bundle: Path) -> None:
    """Loaded aside: calls go on, those of before are answered, and a failure changes nothing."""
    async with bertd_server.open_models(**QUICK) as models:
        old = await models.load(tiny_bundle, name="tiny")
        expected = await old.embed(TEXTS)
        calls = [asyncio.ensure_future(old.embed(TEXTS)) for _ in range(20)]
        loading = asyncio.ensure_future(models.load(tiny_bundle, name="tiny", share=2.0))
        answered = 0
        while not loading.done():
            await models.find("tiny").embed(TEXTS)
            answered += 1
        assert answered
        for vectors in await asyncio.gather(*calls):
            np.testing.assert_array_equal(vectors, expected)
        with pytest.raises(Draining, match="another has its place"):
            await old.embed(TEXTS)
        with pytest.raises(bundle.BundleError):
            await models.load(tiny_bundle / "nowhere", name="tiny")
        new = await loading
        np.testing.assert_array_equal(await new.embed(TEXTS), expected)
        assert await models.unload("tiny")
        with pytest.raises(UnknownModel):
            models.find("tiny")
        assert await old.close()  # again changes nothing
    with pytest.raises(Draining):
        await models.load(tiny_bundle)


async def test_a_model_that_is_loaded_while_all_close_leaves_no_threads(tiny_bundle: Path) -> None:
    models = bertd_server.open_models(**QUICK)
    assert not bertd_server.HostedServices(models).serving  # there is no lane yet
    loading = asyncio.ensure_future(models.load(tiny_bundle))
    await asyncio.sleep(0)  # it has begun
    assert await models.close()
    with pytest.raises(Draining):
        await loading
    assert not lanes()


async def test_two_live_side_by_side(tiny_bundle: Path) -> None:
    """In one process and on one loop, with settings of their own; one ends, the other goes on."""
    two_lanes: OpenOptions = {**QUICK, "lanes": 2}
    caching: OpenOptions = {**QUICK, "cache_bytes": 2**20}
    async with bertd_server.open_model(tiny_bundle, **two_lanes) as one:
        async with bertd_server.open_model(tiny_bundle, **caching) as other:
            assert lanes() == 2 + 1 + 2  # each has one more, for short texts
            first, second = await asyncio.gather(one.embed(TEXTS), other.embed(TEXTS))
            np.testing.assert_array_equal(first, second)
            await other.embed(TEXTS)
            assert (one.gauges().cache_hits, other.gauges().cache_hits) == (0, 2)
        assert lanes() == 2 + 1
        np.testing.assert_array_equal(await one.embed(TEXTS), first)
    assert not lanes()


def test_threads_share_a_model(tiny_bundle: Path) -> None:
    """Eight threads, two sets of models; after the end nothing runs, and calls are refused."""
    with (
        bertd_server.open_models_sync(**QUICK) as models,
        bertd_server.open_model_sync(tiny_bundle, **QUICK) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        model = models.load(tiny_bundle, name="tiny", max_batch_tokens=64)
        asked = [[f"cat number {number}"] for number in range(40)]
        together = list(threads.map(model.embed, asked))
        np.testing.assert_array_equal(
            np.concatenate(together), other.embed([text for (text,) in asked])
        )
        reply, refused = models.find("tiny").embed_each(["a cat", ""], timeout=PATIENCE)
        assert reply.tokens == model.count_tokens(["a cat"])[0]
        assert isinstance(refused.outcome, RequestError)
        with pytest.raises(SettingsError, match="max_batch_tokens"):
            models.load(tiny_bundle, max_batch_tokens=0)
        for version in ("007", "٣", "9" * 20, "new"):  # nobody would find it, or it is no int64
            with pytest.raises(SettingsError, match="use a whole number from 1"):
                models.load(tiny_bundle, version=version)
    assert models.close()  # again changes nothing
    with pytest.raises(Draining):
        model.embed(["a cat"])
    assert not lanes()
    assert not any(thread.name == "bertd-loop" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _others() -> None:
    """Lanes of servers that other tests keep are not counted."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def lanes() -> int:
    """Lanes that have started since the test began."""
    return sum(one.name == "bertd-lane" for one in {*threading.enumerate()} - OTHERS)


def test_threads_are_offered_all_that_asyncio_is() -> None:
    for name in {one for one in dir(OpenModel) if not one.startswith("_")} - NOT_FOR_THREADS:
        assert hasattr(SyncModel, name), name
        assert getattr(SyncModel, name).__doc__
    assert OpenOptions.__optional_keys__ <= Settings.model_fields.keys()


async def test_settings_come_from_arguments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTD_LANES", "7")
    monkeypatch.setenv("BERTD_NO_SUCH_SETTING", "1")
    models = bertd_server.open_models(threads=3, memory_limit="2GiB")
    assert (models.settings.threads, models.settings.memory_limit) == (3, 2**31)
    assert models.settings.lanes != 7
    assert not models.settings.max_request_seconds
    await models.close()
    with pytest.raises(SettingsError, match="'lane': use lanes"):
        bertd_server.open_models(lane=1)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="lanes: "):
        bertd_server.open_models_sync(lanes=0)


QUIET = """
import os, signal, sys, threading

def state():
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.islink(f"/proc/self/fd/{fd}")]
    return (threading.active_count(), len(os.listdir("/proc/self/task")),
            sum(link.startswith("socket:") for link in links), dict(os.environ),
            [signal.getsignal(number) for number in signal.valid_signals()])

before = state()
import bertd_server
before[3].setdefault("ORT_DISABLE_TELEMETRY", "1")  # the one that docs/inside.md names
assert state() == before
assert not {"grpc", "numpy", "onnxruntime", "structlog"} & set(sys.modules)

import grpc, numpy, onnxruntime, tokenizers  # what others start is theirs
before = state()
bertd_server.open_model, bertd_server.open_model_sync, bertd_server.HostedServices
assert state() == before, (before, state())
assert not {"torch", "uvloop", "bertd_client", "bertd_export"} & set(sys.modules)

import asyncio, logging, structlog
with bertd_server.open_model_sync(sys.argv[1], lanes=1, threads=1, warmup_seconds=0,
                                  calibration_seconds=0.05) as model:
    model.embed(["a cat"])
assert state()[3:] == before[3:]
assert not structlog.is_configured() and not logging.root.handlers
assert type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the system's threads in /proc")
def test_nothing_of_the_process_is_taken(tiny_bundle: Path) -> None:
    """No threads or sockets from imports; no signals, loop or logging from use."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", QUIET, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.usefixtures("unconfigured_structlog")
def test_logs_go_where_the_host_has_its_own(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the standard library's logger of our name, or to structlog once it is configured."""
    log = get_logger("bertd")
    with caplog.at_level(logging.WARNING, "bertd"):
        log.info("unheard")
        try:
            next(iter(()))
        except StopIteration:
            log.exception("100% lost", texts=3)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("bertd", "100% lost texts=3")
    assert record.exc_info
    with structlog.testing.capture_logs() as lines:
        log.warning("heard", texts=3)
    assert lines == [{"event": "heard", "log_level": "warning", "texts": 3}]
    assert not capsys.readouterr().out
