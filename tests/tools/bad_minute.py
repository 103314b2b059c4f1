"""A start beside busy programs, and what the server refuses once they have gone.

::

    .venv/bin/python tests/tools/bad_minute.py BUNDLE

It starts `bertd serve` with an empty cache beside eight busy loops, ends them, and sends 146 calls
one after the other, of about 200 words and half a second each; then 20 after a pause of 11 s. It
prints how many had no answer, and why. The loops take every core for some ten seconds.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bertd_client import Client

LOOPS, CALLS, AFTER_REST, SECONDS, WORDS = 8, 146, 20, 0.5, 200
START_SECONDS, REST_SECONDS = 120, 11
BUSY = [sys.executable, "-c", "while True: pass"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"no server after {START_SECONDS} s")


def ask(client: Client, calls: int) -> Counter[str]:
    """What became of calls that had half a second each."""
    found: Counter[str] = Counter()
    for number in range(calls):
        try:
            client.embed([f"{number} " + "word " * WORDS], timeout=SECONDS)
            found["answered"] += 1
        except Exception as error:  # noqa: BLE001 - counted by what it says
            found[str(error).partition(" and ")[0].rstrip("0123456789, ms")[:40]] += 1
    return found


def main() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as cache:
        loops = [subprocess.Popen(BUSY, start_new_session=True) for _ in range(LOOPS)]
        command = [str(Path(sys.executable).with_name("bertd")), "serve", sys.argv[1]]
        command += ["--address", f"127.0.0.1:{port}", "--http-address", "off"]
        server = subprocess.Popen([*command, "--cache-folder", cache])
        try:
            wait_for(port)
            for loop in loops:
                loop.kill()
                loop.wait()
            with Client(f"127.0.0.1:{port}") as client:
                print("first calls", dict(ask(client, CALLS)))
                time.sleep(REST_SECONDS)
                print("after a rest", dict(ask(client, AFTER_REST)))
        finally:
            for process in (*loops, server):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
