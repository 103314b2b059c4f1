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
from bertd_bench.contestants.hosted import free_port
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 120.0
END_SECONDS = 60.0


def quick(cache: Path) -> list[str]:
    """Flags of a server that starts at once, and finds in `cache` what it measured before."""
    return [
        *("--warmup-seconds", "0", "--calibration-seconds", "0.1"),
        *("--http-address", "off", "--cache-folder", str(cache)),
    ]


class RestartableServer:
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
        code = f"{before}\nfrom bertd_client.cli import main\nmain()\n"
        self._command = [sys.executable, "-c", code, "serve", *arguments, "--address", self.address]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once its health is SERVING."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("BERTD_")}
        with self._log.open("wb") as sink:
            self._process = subprocess.Popen(self._command, stdout=sink, stderr=sink, env=env)
        give_up = time.monotonic() + START_SECONDS
        options = [("grpc.max_reconnect_backoff_ms", 100)]
        with grpc.insecure_channel(self.address, options=options) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Check
            while not self._serves(health):
                assert self.running, self._said()
                assert time.monotonic() < give_up, self._said()
                time.sleep(0.02)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process, which must run."""
        assert self._process is not None
        assert self.running, self._said()
        return self._process.pid

    def resident_bytes(self) -> int:
        """Memory of the process."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def connections(self) -> int:
        """Clients that are connected to it."""
        port = int(self.address.rpartition(":")[2])
        return sum(
            found.status == psutil.CONN_ESTABLISHED
            and bool(found.laddr)
            and found.laddr.port == port
            for found in psutil.Process(self.pid).net_connections("tcp")
        )

    def end(self, number: signal.Signals) -> int:
        """End it with a signal, and wait for that; returns its exit code."""
        assert self._process is not None
        assert self.running, self._said()
        self._process.send_signal(number)
        return self._process.wait(END_SECONDS)

    def close(self) -> None:
        """Kill it, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def events(self) -> list[dict[str, Any]]:
        """What this run of it has logged, line by line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @staticmethod
    def _serves(health: Any) -> bool:
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
