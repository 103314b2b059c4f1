"""What `bertd serve` settles for its process, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import asyncio, ctypes, threading
from bertd_server.process import runtime

async def main():
    ready = threading.Barrier(5)
    def take():
        block = bytearray(100_000)
        ready.wait()
    for _ in range(4):
        threading.Thread(target=take).start()
    ready.wait()
    print(type(asyncio.get_running_loop()).__module__)

{run}(main())
ctypes.CDLL(None).malloc_stats()
"""


def heaps(run: str, **variables: str) -> tuple[str, int]:
    """The event loop's package, and how many heaps four threads have taken memory from."""
    environment = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"} | variables
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(run=run)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return child.stdout.strip().split(".")[0], child.stderr.count("Arena ")


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has heaps for threads")
def test_a_serving_process_has_one_heap_and_the_fast_loop() -> None:
    """Unless its environment says otherwise; anybody else's process is left as it is."""
    assert heaps("runtime.run") == ("uvloop", 1)
    assert heaps("runtime.run", MALLOC_ARENA_MAX="3")[1] > 1
    loop, count = heaps("asyncio.run")
    assert loop == "asyncio"
    assert count > 1


MESSAGES = """
import resource
from bertd_server.process import runtime

def take():
    received, message = [bytes(16_384) for _ in range(256)], bytearray()
    for part in received:
        message += part
    return bytes(message)

async def main():
    for _ in range(8):
        take()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        take()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)

runtime.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_large_messages_use_the_memory_of_those_before() -> None:
    """By itself glibc takes some 2,600 pages from the system for each, and gives them back."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    run = [sys.executable, "-c", MESSAGES]
    child = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert int(child.stdout) < 250
