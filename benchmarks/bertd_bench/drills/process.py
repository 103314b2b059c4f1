"""A `bertd serve` that is started and ended many times on one port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bertd_bench.contestants.eager import START_SECONDS, BenchError, free_port

END_SECONDS = 60.0
_LOOK_SECONDS = 0.02


def quick(cache: Path) -> list[str]:
    """Flags of a server that starts at once, and finds in `cache` what it measured before."""
    return [
        *("--warmup-seconds", "0", "--calibration-seconds", "0.1"),
        *("--http-address", "off", "--cache-folder", str(cache)),
    ]


class Served:
    """One server, in a process of its own.

    Attributes:
        address: where it listens, now or later.
    """

    def __init__(self, arguments: Sequence[str], log: Path, *, before: str = "") -> None:
        """Choose a port, and start nothing yet.

        Args:
            arguments: of `bertd serve`, without the address.
            log: its output, all of it.
            before: Python that the process runs first.
        """
        self.address = f"127.0.0.1:{free_port()}"
        self._arguments = list(arguments)
        self._log = log
        self._code = f"{before}\nfrom bertd_client.cli import main\nmain()\n"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once its health is SERVING.

        Raises:
            BenchError: it ended, or took too long.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith("BERTD_")}
        command = ["-c", self._code, "serve", *self._arguments, "--address", self.address]
        with self._log.open("wb") as sink:
            self._process = subprocess.Popen(  # noqa: S603 - our own command with our own paths
                [sys.executable, *command], stdout=sink, stderr=sink, env=env
            )
        give_up = time.monotonic() + START_SECONDS
        with grpc.insecure_channel(
            self.address, options=[("grpc.max_reconnect_backoff_ms", 100)]
        ) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Check
            while time.monotonic() < give_up:
                if self._process.poll() is not None:
                    raise BenchError(
                        f"bertd serve ended with {self._process.returncode}:\n{self._said()}"
                    )
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    time.sleep(_LOOK_SECONDS)
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                time.sleep(_LOOK_SECONDS)
        raise BenchError(f"bertd serve was not ready within {START_SECONDS:.0f} s:\n{self._said()}")

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process, which must run."""
        return self._running_process().pid

    def resident_bytes(self) -> int:
        """Memory of the process."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def end(self, number: signal.Signals) -> int:
        """End it with a signal, and wait for that; returns its exit code.

        Raises:
            BenchError: it does not end.
        """
        process = self._running_process()
        process.send_signal(number)
        try:
            return process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BenchError(
                f"bertd serve did not end with {number.name}:\n{self._said()}"
            ) from None

    def close(self) -> None:
        """Kill it, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def events(self) -> list[dict[str, Any]]:
        """What this run of it has logged, line by line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"bertd serve does not run:\n{self._said()}")
        return self._process

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
