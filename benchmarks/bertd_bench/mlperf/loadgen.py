"""One run of LoadGen over a system: the only place that knows LoadGen.

::

    LoadGen's thread ──issue(samples)──> event loop ──calls──> system ──answers──> LoadGen
                                         at most so many calls at once, but for Server

A call that is refused is made again: LoadGen has no word for a refusal, and to answer it with
nothing would pass for a fast answer. Its latency then has the wait in it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import mlperf_loadgen as lg
from bertd.v1 import inference_pb2

from bertd_bench.load import traffic
from bertd_bench.load.client import EMBED
from bertd_bench.mlperf.settings import SEED, SERVER, STREAMS, LoadGenRun

_IN_FLIGHT = 6  # calls of one large query at once: as many as saturate a server
_AGAIN_SECONDS = 0.005
_NS = 1e9


class RefusedError(Exception):
    """The system has no room for a call now."""


class System(Protocol):
    """What is measured.

    Attributes:
        texts_per_call: the most that it takes at once.
    """

    texts_per_call: int

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        """Answers to samples, as bytes, in their order.

        Raises:
            RefusedError: there is no room now.
        """
        ...


class ServerUnderTest:
    """A running server; construct it on the event loop that uses it.

    Args:
        address: of the server.
        texts: of the samples.
    """

    texts_per_call = 32

    def __init__(self, address: str, texts: Sequence[str]) -> None:
        self._channel = grpc.aio.insecure_channel(
            address, options=(("grpc.max_receive_message_length", -1),)
        )
        self._texts = texts
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(EMBED)
        self._single = traffic.serialize(texts, 1)

    async def ask(self, samples: Sequence[int]) -> list[bytes]:
        """See :class:`System`: calls of Embed, as ready bytes."""
        if len(samples) == 1:
            request = self._single[samples[0]]
        else:
            [request] = traffic.serialize([self._texts[n] for n in samples], len(samples))
        try:
            answer = await self._call(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise RefusedError from error
            raise
        results = inference_pb2.EmbedResponse.FromString(answer).results
        if any(result.HasField("error") for result in results):
            raise RefusedError
        return [result.embedding for result in results]

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class _Issuer:
    """Takes LoadGen's queries to the system."""

    def __init__(self, system: System, run: LoadGenRun) -> None:
        self._loop, self._system = asyncio.get_running_loop(), system
        bounded = run.scenario != SERVER
        self._room = asyncio.Semaphore(_IN_FLIGHT) if bounded else contextlib.nullcontext()
        self._tasks: set[asyncio.Task[None]] = set()
        self.retries = 0
        self.errors: list[BaseException] = []

    def issue(self, samples: Sequence[Any]) -> None:
        """On LoadGen's thread."""
        queries = [(sample.id, sample.index) for sample in samples]
        self._loop.call_soon_threadsafe(self._dispatch, queries)

    def _dispatch(self, queries: list[tuple[int, int]]) -> None:
        size = self._system.texts_per_call
        for start in range(0, len(queries), size):
            task = asyncio.ensure_future(self._call(queries[start : start + size]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, queries: list[tuple[int, int]]) -> None:
        async with self._room:
            answers = await self._answers([index for _, index in queries])
        buffers = [array.array("B", answer) for answer in answers]
        lg.QuerySamplesComplete(
            [
                lg.QuerySampleResponse(number, *buffer.buffer_info())
                for (number, _), buffer in zip(queries, buffers, strict=True)
            ]
        )

    async def _answers(self, samples: list[int]) -> list[bytes]:
        while True:
            try:
                return await self._system.ask(samples)
            except RefusedError:
                self.retries += 1
                await asyncio.sleep(_AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001 - LoadGen would wait for ever
                self.errors.append(error)
                return [b""] * len(samples)


async def execute(system: System, run: LoadGenRun, library: int, folder: Path) -> int:
    """Run LoadGen once, in a thread beside this event loop; its logs go to the folder.

    Args:
        system: that answers, on this loop.
        run: what is asked.
        library: how many samples there are.
        folder: made here.

    Returns:
        How many calls were made again after a refusal.

    Raises:
        Exception: what the system failed with, the first time.
    """
    issuer = _Issuer(system, run)
    await asyncio.to_thread(_run, issuer, run, library, folder)
    if issuer.errors:
        raise issuer.errors[0]
    return issuer.retries


def _run(issuer: _Issuer, run: LoadGenRun, library: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = lg.LogSettings()
    log.log_output = lg.LogOutputSettings()
    log.log_output.outdir = str(folder)
    log.log_output.copy_summary_to_stdout = log.enable_trace = False
    sut = lg.ConstructSUT(issuer.issue, lambda: None)
    qsl = lg.ConstructQSL(library, library, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, qsl, _settings(run), log, "")
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)


def _settings(run: LoadGenRun) -> Any:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, run.scenario)
    mode = lg.TestMode
    settings.mode = mode.AccuracyOnly if run.accuracy else mode.PerformanceOnly
    settings.min_duration_ms = round(run.seconds * 1e3)
    settings.min_query_count = run.queries
    settings.accuracy_sample_count_override = run.samples if run.accuracy else 0
    settings.single_stream_expected_latency_ns = round(run.expected.single * _NS)
    settings.single_stream_target_latency_percentile = 0.9
    settings.multi_stream_expected_latency_ns = round(run.expected.multi * _NS)
    settings.multi_stream_target_latency_percentile = 0.99
    settings.multi_stream_samples_per_query = STREAMS
    settings.server_target_qps = run.rate
    settings.server_target_latency_ns = round(run.limit * _NS)
    settings.server_target_latency_percentile = 0.99
    settings.offline_expected_qps = run.expected.offline
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = SEED
    return settings
