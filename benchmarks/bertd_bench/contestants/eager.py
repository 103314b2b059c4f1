"""PyTorch eager, and a server of our own over gRPC: texts to vectors, tokenisation included."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bertd_export.bundle import export_model
from bertd_server.models import default_model
from numpy.typing import NDArray

from bertd_bench.contestants import torch_eager
from bertd_bench.contestants.peer import EMBED, Setting

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

TOLERANCE = 1e-4  # of vectors of length 1, from eager's
START_SECONDS = 120.0


class BenchError(RuntimeError):
    """The comparison cannot be made, or would not be fair."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """One model twice: the checkpoint for PyTorch, the bundle for bertd."""

    checkpoint: str
    bundle: Path


@contextlib.contextmanager
def open_subject(model: str | None) -> Iterator[ModelPair]:
    """Find the default model, or export `model` for as long as it is needed.

    Raises:
        BenchError: there is no default model here.
    """
    if model is not None:
        with tempfile.TemporaryDirectory(prefix="bertd-bench-") as folder:
            yield ModelPair(model, export_model(model, Path(folder) / "bundle").path)
        return
    try:
        pair = ModelPair(str(default_model.checkpoint_folder()), default_model.ensure_bundle())
    except default_model.NoDefaultModelError as error:
        raise BenchError(str(error)) from error
    yield pair


def eager(checkpoint: str, threads: int) -> Embed:
    """PyTorch as its users write it: padded batch, default attention, mean and normalise."""
    setting = Setting(checkpoint, EMBED, threads, scratch="")
    answer = torch_eager.answering(setting, torch_eager.network_of(setting, "sdpa", "float32"))
    return lambda texts: np.asarray(answer(texts), np.float32)


def distance(answers: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of any element once all have length 1; inf if shapes differ.

    A checkpoint that does not ask for normalising gets plain means from bertd, and unit vectors
    from others.

    Args:
        answers: float32 `[texts, dimensions]`.
        expected: the same.
    """
    if answers.shape != expected.shape:
        return math.inf
    ours, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (answers, expected))
    return float(np.abs(ours - theirs).max())


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A `bertd serve` of our own."""

    process: subprocess.Popen[bytes]
    address: str
    port: int
    log: Path

    def wait_until_listening(self) -> None:
        """Return as soon as a connection is taken.

        Raises:
            BenchError: the server ended, or took too long.
        """
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise BenchError(f"bertd serve ended with {self.process.returncode}:\n{said}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.002)
        raise BenchError(f"bertd serve did not listen within {START_SECONDS:.0f} s")


@contextlib.contextmanager
def server_process(folder: Path, threads: int) -> Iterator[ServerProcess]:
    """Run `bertd serve` with a bundle and so many threads on a free port; SIGTERM at the end."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("BERTD_")}
    command = ["serve", str(folder), "--address", address, "--http-address", "127.0.0.1:0"]
    command += ["--threads", str(threads), "--first-calibration-seconds", "5"]
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        log = Path(scratch) / "serve.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own command with our own paths
                [sys.executable, "-m", "bertd_client.cli", *command],
                stdout=sink,
                stderr=sink,
                env=env,
            )
        try:
            yield ServerProcess(process, address, port, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
