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
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.oip import grpc_service_pb2, grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.contestants.hosted import free_port
from helpers.restartable import RestartableServer, quick
from robustness.callers import LIBRARY, NAME, STREAM, TENSORS, UNARY, Callers
from robustness.scale import LARGE, patient
from robustness.timeline import TEXTS, KnownModel, ServedVersion, Timeline, known

KINDS = (LIBRARY, LIBRARY, UNARY, UNARY, STREAM, TENSORS)
SWAPS = 100 if LARGE else 5
BEFORE = 1_000 if LARGE else 10  # calls answered before the first swap
POLL_SECONDS = 0.1
LOAD_SECONDS = 60.0
GROWTH_LIMIT = 0.10  # of memory, once ten swaps are over


@pytest.fixture(scope="module")
def pair(tiny_bundle: Path, other_bundle: Path) -> tuple[KnownModel, KnownModel]:
    """Two models of one shape that answer no text with the same bits."""
    one, other = known("A", tiny_bundle), known("B", other_bundle)
    assert all(one.bits[text] != other.bits[text] for text in TEXTS)
    return one, other


@patient
@pytest.mark.parametrize("control", ["explicit", pytest.param("poll", marks=pytest.mark.slow)])
def test_models_are_swapped_under_load(
    pair: tuple[KnownModel, KnownModel], control: str, tmp_path: Path
) -> None:
    """New versions, and one version rewritten: each answer has the bits and version of one."""
    repository = Repository(tmp_path / "repository", pair)
    managing = f"127.0.0.1:{free_port()}"
    arguments = [
        *("--repository", str(tmp_path / "repository"), "--model-control", control),
        *("--load-models", "*", "--default-model", NAME, "--management-address", managing),
        *("--poll-seconds", str(POLL_SECONDS), "--threads", "2", "--lanes", "2"),
        *quick(tmp_path / "cache"),
    ]
    server = RestartableServer(arguments, tmp_path / "serve.log")
    try:
        server.start()
        memory = asyncio.run(swap(server, "" if control == "poll" else managing, repository))
        assert server.end(signal.SIGTERM) == 0
    finally:
        server.close()
    assert [one for one in server.events() if one.get("level") == "error"] == []
    assert len(memory) == SWAPS
    if LARGE:
        assert max(memory[-5:]) / max(memory[5:10]) - 1 < GROWTH_LIMIT


async def swap(server: RestartableServer, managing: str, repository: Repository) -> list[int]:
    """Swap the models; gives the server's memory after each swap.

    Args:
        server: that runs.
        managing: address that is told to load; empty where the server looks itself.
        repository: that it serves.
    """
    memory = []
    async with (
        grpc.aio.insecure_channel(managing or server.address) as channel,
        grpc.aio.insecure_channel(server.address) as asked,
        Callers([server.address], repository.timeline, KINDS) as callers,
    ):
        manager: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await callers.answers(BEFORE)
        for number in range(1, SWAPS + 1):
            gone = repository.change(number)
            if managing:
                request = grpc_service_pb2.RepositoryModelLoadRequest(model_name=NAME)
                await manager.RepositoryModelLoad(request, timeout=LOAD_SECONDS)
            else:
                await served(inference_pb2_grpc.InferenceServiceStub(asked), repository.timeline)
            repository.timeline.settle()
            await asyncio.to_thread(shutil.rmtree, gone)
            await callers.answers(len(KINDS))
            memory.append(server.resident_bytes())
    assert callers.wrong == []
    assert set(callers.answered) == set(KINDS)
    return memory


async def served(stub: Any, timeline: Timeline) -> None:
    """Wait until the server has seen the change by itself."""
    wanted, text = timeline.last, TEXTS[0]
    give_up = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < give_up:
        answer = await stub.Embed(inference_pb2.EmbedRequest(texts=[text]))
        bits = answer.results[0].embedding
        if (answer.model_version, bits) == (wanted.version, wanted.model.bits[text]):
            return
        await asyncio.sleep(POLL_SECONDS / 2)
    pytest.fail(f"{wanted.model.letter} as {wanted.version} was not served")


@dataclass
class Repository:
    """A folder of versions of one model, and what they have been."""

    root: Path
    models: tuple[KnownModel, KnownModel]

    def __post_init__(self) -> None:
        self.timeline = Timeline([ServedVersion(self.models[0], "1")])
        self._staging, self._folder = self.root / ".staging", self.root / NAME
        self._staging.mkdir(parents=True)
        shutil.copytree(self.models[0].bundle, self._folder / "1", copy_function=os.link)

    def change(self, number: int) -> Path:
        """Put a bundle in; gives where the one before it is now.

        Two new versions in a row, then two times the same one rewritten: so each way follows the
        other, and itself.
        """
        before = self.timeline.last.version
        version = str(int(before) + 1) if number % 4 < 2 else before
        model = self.models[number % 2]
        staged = self._staging / "next"
        shutil.copytree(model.bundle, staged, copy_function=os.link)
        self.timeline.versions.append(ServedVersion(model, version))
        gone = self._folder / before
        if version == before:
            gone = gone.rename(self._staging / "aside")  # for a moment there is none
        staged.rename(self._folder / version)
        return gone


def test_the_timeline_sees_what_is_wrong(pair: tuple[KnownModel, KnownModel]) -> None:
    """Bits of the other model, of both, of none; a version that is not theirs; one long gone."""
    one, other = pair
    texts = TEXTS[:2]
    mine, theirs = ([model.bits[text] for text in texts] for model in pair)
    timeline = Timeline([ServedVersion(one, "1")])
    assert timeline.wrong(0, texts, mine, "1") == ""
    assert timeline.wrong(0, texts, theirs, "1").endswith(
        "has the bits of ['nobody', 'nobody']; allowed: A as 1"
    )
    timeline.versions.append(ServedVersion(other, "2"))
    assert timeline.wrong(0, texts, theirs, "2") == timeline.wrong(0, texts, mine) == ""
    assert "['B', 'B']" in timeline.wrong(0, texts, theirs, "1")
    assert "['A', 'B']" in timeline.wrong(0, texts, [mine[0], theirs[1]])
    assert "1 vectors" in timeline.wrong(0, texts, mine[:1])
    timeline.settle()
    assert "allowed: B as 2" in timeline.wrong(timeline.settled, texts, mine, "1")
