"""Models swapped under load: no call may fail, and each is answered by one whole model.

::

    repository <──rename── a new version, or the same one rewritten: A, B, A, …
        │ RepositoryModelLoad, or the server's own look
        v
    bertd serve <── Callers ──> Timeline: whose bits, which version

Each server is swapped in two ways, in turn: with a new version beside the one before it, which is
removed afterwards, and with another bundle under the same version.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import grpc
from bertd.oip import grpc_service_pb2, grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc

from bertd_bench.contestants.eager import BenchError, free_port
from bertd_bench.drills.callers import LIBRARY, STREAM, TENSORS, UNARY, Callers
from bertd_bench.drills.models import NAME, TEXTS, DrillModel, check_different, copy
from bertd_bench.drills.process import Served, quick
from bertd_bench.drills.report import DrillReport
from bertd_bench.drills.timeline import ServedVersion, Timeline

Control = Literal["explicit", "poll"]

_KINDS = (LIBRARY, LIBRARY, UNARY, UNARY, STREAM, TENSORS)
_POLL_SECONDS = 0.1
_LOAD_SECONDS = 60.0


def drill(  # noqa: PLR0913 - as the command has them
    models: Sequence[DrillModel],
    control: Control,
    *,
    times: int,
    quiet_calls: int,
    folder: Path,
    flags: Sequence[str] = (),
    progress: Callable[[str], None],
) -> DrillReport:
    """Swap two models under load.

    Args:
        models: the models.
        control: what makes the server load.
        times: how many swaps.
        quiet_calls: that are answered before the first, for comparison.
        folder: for the repository and the log, made here.
        flags: further ones of `bertd serve`.
        progress: told now and then.

    Raises:
        BenchError: the server did not start or ended, or a swap never came.
    """
    check_different(models)
    repository = folder / "repository"
    staging = repository / ".staging"
    staging.mkdir(parents=True)
    copy(models[0].bundle, repository / NAME / "1")
    managing = f"127.0.0.1:{free_port()}"
    arguments = [
        *("--repository", str(repository), "--model-control", control, "--load-models", "*"),
        *("--poll-seconds", str(_POLL_SECONDS), "--management-address", managing),
        *("--default-model", NAME, *quick(folder / "cache"), *flags),
    ]
    server = Served(arguments, folder / "serve.log")
    server.start()
    try:
        swapper = _Swapper(server, managing, models, repository / NAME, staging)
        found = asyncio.run(swapper.run(control, times, quiet_calls, progress))
        code = server.end(signal.SIGTERM)
        if code:
            found.seen.wrong.append(f"the server ended with {code}")
        failed = [one for one in server.events() if one.get("level") == "error"]
        found.seen.wrong += [f"the server's log: {one}" for one in failed]
        return found
    finally:
        server.close()


class _Swapper:
    """Puts bundles into a repository, and waits until they are served."""

    def __init__(
        self,
        server: Served,
        managing: str,
        models: Sequence[DrillModel],
        folder: Path,
        staging: Path,
    ) -> None:
        self._server = server
        self._managing = managing
        self._models = models
        self._folder = folder
        self._staging = staging
        self._timeline = Timeline([ServedVersion(models[0], "1")])

    async def run(
        self, control: Control, times: int, quiet_calls: int, progress: Callable[[str], None]
    ) -> DrillReport:
        memory: list[int] = []
        first = time.monotonic()
        async with (
            grpc.aio.insecure_channel(self._managing) as managing,
            grpc.aio.insecure_channel(self._server.address) as channel,
            Callers([self._server.address], self._timeline, _KINDS) as callers,
        ):
            manager: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(managing)
            asker: Any = inference_pb2_grpc.InferenceServiceStub(channel)
            await callers.answers(quiet_calls)
            began = time.monotonic()
            for number in range(1, times + 1):
                model = self._models[number % len(self._models)]
                # Two of each in a row: each way follows the other, and itself.
                gone = self._new_version(model) if number % 4 < 2 else self._rewrite(model)
                if control == "explicit":
                    request = grpc_service_pb2.RepositoryModelLoadRequest(model_name=NAME)
                    await manager.RepositoryModelLoad(request, timeout=_LOAD_SECONDS)
                else:
                    await self._served(asker)
                self._timeline.settle()
                await asyncio.to_thread(shutil.rmtree, gone)
                await callers.answers(len(_KINDS))
                memory.append(self._server.resident_bytes())
                if number % 10 == 0:
                    progress(
                        f"{control}: {number} swaps, {callers.seen.answered.total()} answers, "
                        f"{memory[-1] / 2**20:.0f} MiB, {len(callers.seen.wrong)} wrong"
                    )
            ended = time.monotonic()
        return DrillReport(control, times, callers.seen, first, began, ended, memory)

    def _new_version(self, model: DrillModel) -> Path:
        """Put a bundle beside the one before, under the next number; returns that one's folder."""
        before = self._timeline.last.version
        served = ServedVersion(model, str(int(before) + 1))
        staged = self._staged(model)
        self._timeline.add(served)
        staged.rename(self._folder / served.version)
        return self._folder / before

    def _rewrite(self, model: DrillModel) -> Path:
        """Put a bundle in the place of the one before; returns where that one is now."""
        served = ServedVersion(model, self._timeline.last.version)
        staged = self._staged(model)
        aside = self._staging / "aside"
        self._timeline.add(served)
        (self._folder / served.version).rename(aside)  # for a moment there is none
        staged.rename(self._folder / served.version)
        return aside

    def _staged(self, model: DrillModel) -> Path:
        staged = self._staging / "next"
        copy(model.bundle, staged)
        return staged

    async def _served(self, asker: Any) -> None:
        """Wait until the server has seen the change by itself."""
        served, text = self._timeline.last, TEXTS[0]
        give_up = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < give_up:
            answer = await asker.Embed(inference_pb2.EmbedRequest(texts=[text]))
            if (answer.model_version, answer.results[0].embedding) == (
                served.version,
                served.model.bits[text],
            ):
                return
            await asyncio.sleep(_POLL_SECONDS / 2)
        raise BenchError(f"{served.model.letter} as {served.version} was not served: see the log")
