"""bertd: the engine in process with each precision, and the server over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bertd_bench.contestants.peer import (
    EMBED,
    TASKS,
    AnswerTexts,
    Peer,
    PeerUnavailable,
    Setting,
    TextArrays,
)

if TYPE_CHECKING:
    from bertd_client import Client

ENGINE = "bertd"
ENGINE_INT8 = "bertd int8"
GRPC = "bertd over gRPC"


def _folder(setting: Setting, precision: str) -> Path:
    if precision not in setting.bundles:
        raise PeerUnavailable(f"the model has no {precision} bundle here")
    return Path(setting.bundles[precision])


def _engine(precision: str) -> Callable[[Setting], AnswerTexts]:
    def build(setting: Setting) -> AnswerTexts:
        from bertd.bundle import read_manifest
        from bertd_server.engine.engine import Engine, EngineOptions
        from bertd_server.tokenization.reader import Reader

        folder = _folder(setting, precision)
        manifest = read_manifest(folder)
        reader = Reader.of(folder, manifest)
        engine = Engine(folder, manifest, EngineOptions(setting.threads))
        if setting.task == EMBED:
            return lambda texts: engine.embed(reader.sequences(texts), wide=engine.has_wide)
        [output] = manifest.outputs

        def answer(texts: Sequence[str]) -> TextArrays:
            answers = engine.answer(reader.sequences(texts), [output], wide=engine.has_wide)
            rows = [each[output] for each in answers]
            return rows if manifest.outputs[output] == "tokens" else [row[0] for row in rows]

        return answer

    return build


def _grpc(setting: Setting) -> AnswerTexts:
    """A server in a process of its own, called by the client library; it ends with this one."""
    from bertd_client import Client

    from bertd_bench.contestants.eager import START_SECONDS, server_process

    folder = _folder(setting, "fp32")
    server = running.enter_context(server_process(folder, setting.threads))
    server.wait_until_listening()
    client = running.enter_context(Client(server.address))
    end = time.monotonic() + START_SECONDS
    while not _answers(client) and time.monotonic() < end:
        time.sleep(0.05)
    return lambda texts: client.embed(texts, prompt_name="", timeout=60)


def _answers(client: Client) -> bool:
    """Whether the server has loaded its model; before that it listens, and refuses."""
    from bertd_client.errors import Unavailable

    try:
        client.embed(["ready"], prompt_name="")
    except Unavailable:
        return False
    return True


running = ExitStack()
"""What the worker closes when it ends."""


_NEEDS = ("bertd_server", "onnxruntime")

PEERS = (
    Peer(ENGINE, "fp32", _NEEDS, _engine("fp32"), TASKS, own=True, handles=False),
    Peer(ENGINE_INT8, "int8", _NEEDS, _engine("int8"), TASKS, own=True, handles=False),
    Peer(GRPC, "fp32", (*_NEEDS, "bertd_client"), _grpc, own=True, handles=False),
)
