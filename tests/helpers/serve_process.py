"""`bertd serve` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = (
    "import sys, atexit, json\n"
    "atexit.register(lambda: print(json.dumps(sorted({m.partition('.')[0] for m in"
    " sys.modules}))))\n"
    "from bertd_client.cli import main\n"
    "main()\n"
)

# Once it listens, no run of its engine ever ends; each says when it begins.
STUCK = (
    "import sys, threading\n"
    "from bertd_server.engine import engine\n"
    "from bertd_server.process import app\n"
    "def run(*_, **__):\n"
    "    print('stuck', file=sys.stderr, flush=True)\n"
    "    threading.Event().wait()\n"
    "load = app.Server.load\n"
    "async def stuck(server):\n"
    "    await load(server)\n"
    "    engine.Engine.answer = run\n"
    "app.Server.load = stuck\n"
)


@contextmanager
def serving(
    folder: Path, *flags: str, before: str = ""
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A `bertd serve` on a free port, and its address; it prints its modules as it ends."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            before + SCRIPT,
            "serve",
            str(folder),
            "--address",
            "127.0.0.1:0",
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        ready, started = (json.loads(process.stderr.readline()) for _ in range(2))
        assert (ready["event"], started["event"]) == ("engine ready", "serving")
        assert started["request"].startswith("bertd ")
        assert started["request"].endswith(f"--address {started['address']}")
        yield process, started["address"]
    finally:
        process.kill()
        process.communicate()
