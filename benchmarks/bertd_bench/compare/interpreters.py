"""Which interpreter runs which peer: the first that has what it needs.

Peers want versions that exclude each other, so that they are installed apart (`make peers`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertd_bench.compare.process import PeerError, probe
from bertd_bench.contestants.catalogue import PEERS
from bertd_bench.contestants.peer import Peer

USUAL = ".peers/*/bin/python"  # what `make peers` makes


@dataclass(frozen=True, slots=True)
class Home:
    """An interpreter, its number among those of a run, and its packages."""

    interpreter: str
    number: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Homes:
    """Where each peer runs, and why others run nowhere."""

    all: list[Home]
    of_peer: dict[str, Home]
    skipped: dict[str, str]


def find(peers: Sequence[Peer], further: Sequence[str], scratch: Path) -> Homes:
    """Ask this interpreter and then the others what they have.

    Args:
        peers: that are wanted.
        further: paths of interpreters; none for those of `make peers`, below this folder.
        scratch: a folder for a link.

    Raises:
        PeerError: an interpreter does not run.
    """
    usual = [str(path) for path in sorted(Path.cwd().glob(USUAL))]
    interpreters = [sys.executable, *(further or usual)]
    homes: list[Home] = []
    missing: dict[str, list[str]] = {}
    of_peer: dict[str, Home] = {}
    for number, interpreter in enumerate(interpreters):
        found = probe(interpreter, scratch, own=number == 0)
        homes.append(Home(interpreter, number, found["versions"]))
        for peer in peers:
            lacks = found["missing"][peer.name]
            if lacks and (peer.name not in missing or len(lacks) < len(missing[peer.name])):
                missing[peer.name] = lacks
            elif not lacks:
                of_peer.setdefault(peer.name, homes[-1])
    skipped = {
        peer.name: f"not installed: {', '.join(missing[peer.name])}"
        for peer in peers
        if peer.name not in of_peer
    }
    return Homes(homes, of_peer, skipped)


def chosen(names: Sequence[str], precisions: Sequence[str]) -> list[Peer]:
    """Peers of these names and precisions; all of a kind that is not limited.

    Raises:
        PeerError: there is no peer of a name.
    """
    for name in names:
        if name not in PEERS:
            raise PeerError(f"no peer is called {name!r}: choose among {', '.join(PEERS)}")
    return [
        peer
        for peer in PEERS.values()
        if (not names or peer.name in names or peer.own)
        and (not precisions or peer.precision in precisions)
    ]


def said(peers: Sequence[Peer], further: Sequence[str]) -> list[str]:
    """A line for each peer: who runs it, or what it lacks.

    Raises:
        PeerError: an interpreter does not run.
    """
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as scratch:
        homes = find(peers, further, Path(scratch))
    places = {name: home.interpreter for name, home in homes.of_peer.items()} | homes.skipped
    return [f"{peer.name:32}  {peer.precision}  {places[peer.name]}" for peer in peers]
