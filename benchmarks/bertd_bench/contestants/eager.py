"""PyTorch eager, and a server of our own over gRPC: texts to vectors, tokenisation included."""

from __future__ import annotations

import contextlib
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
from bertd_server.models import default_model
from numpy.typing import NDArray

from bertd_bench.contestants import torch_eager
from bertd_bench.contestants.hosted import free_port
from bertd_bench.contestants.peer import EMBED, Setting

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

START_SECONDS = 120.0


class BenchError(RuntimeError):
    """The comparison cannot be made, or would not be fair."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """One model twice: the checkpoint for PyTorch, the bundle for bertd."""

    checkpoint: str
    bundle: Path


def default_pair() -> ModelPair:
    """The default model, exported if it is not.

    Raises:
        BenchError: there is none here.
    """
    try:
        return ModelPair(str(default_model.checkpoint_folder()), default_model.ensure_bundle())
    except default_model.NoDefaultModelError as error:
        raise BenchError(str(error)) from error


def eager(checkpoint: str, threads: int) -> Embed:
    """PyTorch as its users write it: padded batch, default attention, mean and normalise."""
    setting = Setting(checkpoint, EMBED, threads, scratch="")
    answer = torch_eager.answering(setting, torch_eager.network_of(setting, "sdpa", "float32"))
    return lambda texts: np.asarray(answer(texts), np.float32)


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
