"""A cluster of Ray with bertd behind its proxy, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

_PROGRAM = Path(__file__).with_name("ray_cluster.py")


class RayServed:
    """What runs there.

    Attributes:
        address: of the gRPC proxy.
        http: port of the HTTP proxy.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        ports = self._read()
        self.address = f"127.0.0.1:{ports['port']}"
        self.http: int = ports["http"]

    def tell(self, **command: Any) -> Any:
        """Have a command of the program done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)


@contextmanager
def ray_served(arguments: Mapping[str, Any]) -> Iterator[RayServed]:
    """Deploy what the arguments say; all ends with the block."""
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM), json.dumps(arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield RayServed(process)
    finally:
        process.communicate()  # its input ends, and so does it


@contextmanager
def channel_to(address: str) -> Iterator[grpc.Channel]:
    """A connection of its own: one more of the same options would share one."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel
