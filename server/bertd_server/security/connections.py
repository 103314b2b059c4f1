"""Connections of a port, counted by their clients: none holds the slots of all others.

::

    files of the process, a few times a second ──many──> connections: client, bytes received
                                          └─few: nothing    └──surplus──> shut down

gRPC limits connections as a whole, and counts those that say nothing. Its sockets are found among
the files of this process, since it gives no way to them; one that is shut down it takes for ended
by its client. Only Linux has what this needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_FILES = Path("/proc/self/fd")
_PAUSE = 0.1  # seconds between two looks
_TELL_SECONDS = 10.0  # between two lines of the log
_FULL = 0.75  # of all slots: beyond, connections without a call end
# What HTTP/2 begins with has less than so many bytes, and with a call it has more.
_CALL_BYTES = 150
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in Linux's struct tcp_info
_NETWORK = 64  # bits of an IPv6 address that a client does not choose


@dataclass(frozen=True, slots=True)
class Connection:
    """One that is open.

    Attributes:
        inode: of its socket, which no other has meanwhile.
        peer: address of the client, of IPv6 its network.
        received: bytes that have come on it.
    """

    inode: str
    peer: str
    received: int


def surplus(
    found: Sequence[Connection], known: Mapping[str, int], per_peer: int, most: int
) -> list[Connection]:
    """Which connections end: those of a client beyond its own, and without a call if slots are few.

    First go those that have made no call, the oldest of them first; then the newest.

    Args:
        found: all of a port.
        known: by inode, at which look a connection was seen first.
        per_peer: connections of one client; 0 for no limit.
        most: of all; 0 for no limit.
    """
    peers: dict[str, list[Connection]] = defaultdict(list)
    for one in sorted(found, key=lambda one: _order(one, known)):
        peers[one.peer].append(one)
    ended: list[Connection] = []
    if per_peer:
        for each in peers.values():
            beyond = max(0, len(each) - per_peer)
            ended += each[:beyond]
            del each[:beyond]
    excess = len(found) - len(ended) - _free_until(most) if most else 0
    for each in sorted(peers.values(), key=len, reverse=True):
        unused = [one for one in each if one.received < _CALL_BYTES and one.inode in known]
        ended += unused[: max(0, excess)]
        excess -= len(unused)
    return ended


def _free_until(most: int) -> int:
    """Connections of a port, of so many at most, beyond which slots are few."""
    return max(1, int(_FULL * most))


def _order(one: Connection, known: Mapping[str, int]) -> tuple[bool, int]:
    """Its place among those that end."""
    used, look = one.received >= _CALL_BYTES, known.get(one.inode, sys.maxsize)
    return used, -look if used else look


class ConnectionWatch:
    """Looks at one port again and again. Use it on one event loop."""

    def __init__(self, port: int, per_peer: int, most: int) -> None:
        """Look at nothing yet.

        Args:
            port: that gRPC listens on.
            per_peer: connections of one client; 0 for no limit.
            most: of all; 0 for no limit.
        """
        self._port = port
        self._limits = per_peer, most
        limits = [per_peer, most and _free_until(most)]
        self._few = min((limit for limit in limits if limit), default=sys.maxsize)
        self._known: dict[str, int] = {}
        self._looks = self._closed = 0
        self._told = -_TELL_SECONDS
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on, where the system allows it."""
        if sys.platform == "linux" and self._few < sys.maxsize:
            self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if _files() > self._few:
                await asyncio.to_thread(self._look)
            else:
                self._known.clear()

    def _look(self) -> None:
        found = dict(_connections(self._port))
        ended = surplus([*found], self._known, *self._limits)
        self._looks += 1
        self._known = {one.inode: self._known.get(one.inode, self._looks) for one in found}
        self._closed += sum(_shut(found[one], one.inode) for one in ended)
        if self._closed and time.monotonic() >= self._told + _TELL_SECONDS:
            self._told = time.monotonic()
            closed, self._closed = self._closed, 0
            log.warning(
                "connections were closed",
                connections=closed,
                open=len(found),
                clients=len({one.peer for one in ended}),
                remedy="fewer connections of a client, a limit before the server, or a larger "
                "--max-connections-per-peer and --max-connections",
            )


def _files() -> int:
    """How many this process has open."""
    # In a fifth of the time that Path.iterdir takes, ten times a second.
    return len(os.listdir(_FILES))  # noqa: PTH208


def _connections(port: int) -> Iterator[tuple[Connection, int]]:
    """Those of a port, with their descriptors."""
    for path in _FILES.iterdir():
        with _opened(int(path.name)) as (inode, one), contextlib.suppress(OSError):
            if one is None or one.getsockname()[1] != port:
                continue
            peer = _client(one.getpeername()[0])
            info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            yield Connection(inode, peer, *_RECEIVED.unpack(info)), int(path.name)


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[tuple[str, socket.socket | None]]:
    """A duplicate of a descriptor, which may be another file's by now; None if it is no IP socket.

    It is held for some µs: gRPC closes its own meanwhile as if it were the last one.
    """
    try:
        inode = str((_FILES / str(descriptor)).readlink())
        copy = os.dup(descriptor) if inode.startswith("socket:") else -1
    except OSError:
        copy, inode = -1, ""
    if copy < 0:
        yield inode, None
        return
    with socket.socket(fileno=copy) as one:
        yield inode, one if one.family in {socket.AF_INET, socket.AF_INET6} else None


def _shut(descriptor: int, inode: str) -> bool:
    """Shut a connection down, if the descriptor is still its own."""
    with _opened(descriptor) as (_, one):
        if one is None or f"socket:[{os.fstat(one.fileno()).st_ino}]" != inode:
            return False
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        return True


def _client(host: str) -> str:
    """Who an address belongs to: an IPv6 client has all addresses of its network."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(address), _NETWORK), strict=False))
