"""A server that starts: what it has taken, what it answers, how it ends, what is wrong."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd_client import Client, Unavailable
from bertd_server.cli import serve
from bertd_server.models import startup
from bertd_server.models.startup import ReadyEngine
from bertd_server.serving.server import CannotListenError, Server
from bertd_server.system.exits import Exit
from click.testing import CliRunner
from helpers.patience import PATIENCE
from helpers.running import quick_settings


async def test_until_it_has_its_model_a_server_says_so(tiny_bundle: Path) -> None:
    """Health and /readyz say no, /healthz yes; calls may be tried again. Then all is well."""
    go_on = threading.Event()

    def start(*given: Any) -> tuple[ReadyEngine, Any]:
        assert go_on.wait(PATIENCE)
        return startup.start(*given)

    server = Server(tiny_bundle, quick_settings(http_address="127.0.0.1:0", name="mine"), start)
    port = await server.listen()
    loading = asyncio.create_task(server.load())

    def asked(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://{server.observability.http_address}{path}") as it:
                return int(it.status)
        except urllib.error.HTTPError as error:
            return error.code

    def seen() -> tuple[Any, ...]:
        channel: Any  # its stubs cannot say what bytes are
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_retries", 0)]) as channel:
            health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE)
        return health, asked("/healthz"), asked("/readyz")

    def embedded() -> str:
        with Client(f"127.0.0.1:{port}") as client:
            try:
                return str(client.embed(["hello"], model="mine").shape[0])
            except Unavailable as error:
                return error.reason

    serving, not_serving = b"\x08\x01", b"\x08\x02"
    assert await asyncio.to_thread(seen) == (not_serving, 200, 503)
    assert await asyncio.to_thread(embedded) == "STARTING"
    go_on.set()
    await loading
    assert await asyncio.to_thread(seen) == (serving, 200, 200)
    assert await asyncio.to_thread(embedded) == "1"
    assert await server.drain() is Exit.FINISHED


@pytest.mark.parametrize("flag", ["--address", "--management-address", "--http-address"])
def test_a_taken_address_is_said_before_anything_is_loaded(tmp_path: Path, flag: str) -> None:
    """The folder is no bundle, which nobody has come to look at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--address": "127.0.0.1:0", "--http-address": "off"} | {flag: address}
        result = CliRunner().invoke(
            serve, [str(tmp_path), *(f"{name}={value}" for name, value in flags.items())]
        )
    assert result.exit_code == Exit.CANNOT_START
    assert re.search(f"Address already in use.*; choose another with {flag}", result.output)


async def test_a_socket_that_somebody_listens_on_is_not_taken_away(tmp_path: Path) -> None:
    """The file that a killed server has left is."""
    path = tmp_path / "s"
    server = Server(tmp_path, quick_settings(address=f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(CannotListenError, match=r"in use; choose another with --address"):
            await server.listen()
    assert path.exists()
    again = Server(tmp_path, quick_settings(address=f"unix:{path}"))
    await again.listen()
    await again.abandon()
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--api-keys={}/none"], "No such file"),
        (["--api-keys={}"], "is a folder"),
        (["--tls-certificate={}", "--tls-key={}"], "Is a directory"),
        (["--memory-limit=1KiB"], "give at least 64MiB"),
        (["--api-keys={}/garbage"], "cannot be read"),
        (["--tls-certificate={}/none", "--tls-key={}/none"], "TLS cannot be offered"),
        (["--tls-certificate={}/garbage", "--tls-key={}/garbage"], "TLS cannot be offered"),
        (["--tls-certificate={}/garbage"], "without --tls-key"),
        (["--address=0.0.0.0:0"], "can be reached from other machines"),
        (["--config={}"], "is no regular file"),
        (["--name=a\nb"], "cannot be shown"),
        (["--name=a", "--repository={}"], "--name and --repository"),
    ],
)
def test_what_the_next_start_would_meet_again_is_misuse(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    """So that nobody restarts the server for ever."""
    (tmp_path / "garbage").write_text("garbage")
    arguments = [flag.format(tmp_path) for flag in flags]
    if not any("--repository" in flag for flag in flags):
        arguments.append(str(tmp_path))
    result = CliRunner().invoke(serve, arguments)
    assert (result.exit_code, words in result.output) == (Exit.MISUSED, True), result.output


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_that_imports(number: signal.Signals) -> None:
    """Also one that a supervisor has held back."""
    code = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "from bertd import command\n"
        "sys.argv[1:] = ['serve']\n"
        "command.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (Exit.FINISHED, b"")


SUPERVISED = (
    "import sys\n"
    "from bertd import command\n"
    "from bertd_server.models import startup\n"
    "def load(*_):\n"
    "    print('loading', file=sys.stderr, flush=True)\n"
    "    __import__('time').sleep(900)\n"
    "startup.load = load\n"
    "command.main()\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="it supervises")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_ends_while_its_server_loads_leaves_none(
    tiny_bundle: Path, number: signal.Signals
) -> None:
    """Told to, with the server's code; killed, without a word to it."""
    command = [sys.executable, "-c", SUPERVISED, "serve", "--supervise", str(tiny_bundle)]
    flags = ["--address=127.0.0.1:0", "--http-address=off"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "loading\n"
            process.send_signal(number)
            _, log = process.communicate(timeout=PATIENCE)  # until the last has closed its output
        finally:
            process.kill()
    assert process.returncode == (0 if number is signal.SIGTERM else -number)
    assert json.loads(log.splitlines()[-1])["event"] == "ended while it started"
