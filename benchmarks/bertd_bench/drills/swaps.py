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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
from bertd.oip import grpc_service_pb2, grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc

from bertd_bench.contestants.eager import BenchError, free_port
from bertd_bench.drills.callers import LIBRARY, STREAM, TENSORS, UNARY, Callers, Seen
from bertd_bench.drills.models import NAME, TEXTS, Kind, check_different, copy
from bertd_bench.drills.process import Served, quick
from bertd_bench.drills.timeline import Timeline, Turn

Control = Literal["explicit", "poll"]

GROWTH_LIMIT = 0.10
_KINDS = (LIBRARY, LIBRARY, UNARY, UNARY, STREAM, TENSORS)
_SETTLING = 10  # swaps after which memory must not grow any more
_WINDOW = 5  # swaps of which the largest memory counts
_POLL_SECONDS = 0.1
_LOAD_SECONDS = 60.0


@dataclass(slots=True)
class Swapped:
    """What was seen of one server.

    Attributes:
        control: what made it load.
        swaps: that were made.
        seen: by the callers.
        memory: bytes resident after each swap.
        began: when swaps began, after a quiet time.
        ended: when the last had been made.
        first: when calls began.
    """

    control: Control
    swaps: int
    seen: Seen
    memory: list[int]
    first: float
    began: float
    ended: float

    @property
    def growth(self) -> float:
        """Most memory of the last swaps over that of those before the tenth, less one."""
        early = self.memory[: min(_SETTLING, len(self.memory))][-_WINDOW:]
        return max(self.memory[-_WINDOW:]) / max(early) - 1

    @property
    def a_minute(self) -> float:
        """Swaps."""
        return 60 * self.swaps / (self.ended - self.began)

    def latency(self, share: float) -> tuple[float, float]:
        """A quantile in milliseconds: before the swaps, and during them."""
        return (
            self.seen.milliseconds(share, self.first, self.began),
            self.seen.milliseconds(share, self.began, self.ended),
        )

    @property
    def wrong(self) -> list[str]:
        """What should not have happened."""
        grown = []
        if self.growth >= GROWTH_LIMIT:
            grown = [f"memory grew by {self.growth:.1%} after the first {_SETTLING} swaps"]
        return [*self.seen.wrong, *grown]


def drill(  # noqa: PLR0913 - as the command has them
    kinds: Sequence[Kind],
    control: Control,
    *,
    swaps: int,
    quiet_calls: int,
    folder: Path,
    flags: Sequence[str] = (),
    progress: Callable[[str], None],
) -> Swapped:
    """Swap two models under load.

    Args:
        kinds: the models.
        control: what makes the server load.
        swaps: how many.
        quiet_calls: that are answered before the first, for comparison.
        folder: for the repository and the log, made here.
        flags: further ones of `bertd serve`.
        progress: told now and then.

    Raises:
        BenchError: the server did not start or ended, or a swap never came.
    """
    check_different(kinds)
    repository = folder / "repository"
    staging = repository / ".staging"
    staging.mkdir(parents=True)
    copy(kinds[0].bundle, repository / NAME / "1")
    managing = f"127.0.0.1:{free_port()}"
    arguments = [
        *("--repository", str(repository), "--model-control", control, "--load-models", "*"),
        *("--poll-seconds", str(_POLL_SECONDS), "--management-address", managing),
        *("--default-model", NAME, *quick(folder / "cache"), *flags),
    ]
    server = Served(arguments, folder / "serve.log")
    server.start()
    try:
        swapper = _Swapper(server, managing, kinds, repository / NAME, staging)
        seen = asyncio.run(swapper.run(control, swaps, quiet_calls, progress))
        code = server.end(signal.SIGTERM)
        if code:
            seen.seen.wrong.append(f"the server ended with {code}")
        failed = [one for one in server.events() if one.get("level") == "error"]
        seen.seen.wrong += [f"the server's log: {one}" for one in failed]
        return seen
    finally:
        server.close()


class _Swapper:
    """Puts bundles into a repository, and waits until they are served."""

    def __init__(
        self, server: Served, managing: str, kinds: Sequence[Kind], folder: Path, staging: Path
    ) -> None:
        self._server = server
        self._managing = managing
        self._kinds = kinds
        self._folder = folder
        self._staging = staging
        self._timeline = Timeline([Turn(kinds[0], "1")])

    async def run(
        self, control: Control, swaps: int, quiet_calls: int, progress: Callable[[str], None]
    ) -> Swapped:
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
            for number in range(1, swaps + 1):
                kind = self._kinds[number % len(self._kinds)]
                # Two of each in a row: each way follows the other, and itself.
                gone = self._new_version(kind) if number % 4 < 2 else self._rewrite(kind)
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
        return Swapped(control, swaps, callers.seen, memory, first, began, ended)

    def _new_version(self, kind: Kind) -> Path:
        """Put a bundle beside the one before, under the next number; returns that one's folder."""
        before = self._timeline.last.version
        turn = Turn(kind, str(int(before) + 1))
        staged = self._staged(kind)
        self._timeline.add(turn)
        staged.rename(self._folder / turn.version)
        return self._folder / before

    def _rewrite(self, kind: Kind) -> Path:
        """Put a bundle in the place of the one before; returns where that one is now."""
        turn = Turn(kind, self._timeline.last.version)
        staged = self._staged(kind)
        aside = self._staging / "aside"
        self._timeline.add(turn)
        (self._folder / turn.version).rename(aside)  # for a moment there is none
        staged.rename(self._folder / turn.version)
        return aside

    def _staged(self, kind: Kind) -> Path:
        staged = self._staging / "next"
        copy(kind.bundle, staged)
        return staged

    async def _served(self, asker: Any) -> None:
        """Wait until the server has seen the change by itself."""
        turn, text = self._timeline.last, TEXTS[0]
        give_up = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < give_up:
            answer = await asker.Embed(inference_pb2.EmbedRequest(texts=[text]))
            if (answer.model_version, answer.results[0].embedding) == (
                turn.version,
                turn.kind.bits[text],
            ):
                return
            await asyncio.sleep(_POLL_SECONDS / 2)
        raise BenchError(f"{turn.kind.letter} as {turn.version} was not served: see the log")
