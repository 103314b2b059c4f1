"""`bertd serve` as a process: what it imports, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from bertd_client import Client
from bertd_client.cli import main
from bertd_server.process import app
from bertd_server.system.exits import Exit
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.patience import PATIENCE
from helpers.serve_process import SCRIPT, STUCK, serving

# It never has its bundle.
LOADING = (
    "import asyncio, sys, time\n"
    "from bertd_server.process import app\n"
    "async def load(*_):\n"
    "    print('loading', file=sys.stderr, flush=True)\n"
    "    await asyncio.to_thread(time.sleep, 900)\n"
    "app.Server.load = load\n"
)

# Once it serves, no other bundle is ever ready.
LOADING_ANOTHER = (
    "import sys, time\n"
    "from bertd_server.models import startup\n"
    "from bertd_server.process import app\n"
    "def load(*given):\n"
    "    if given[0].name == '2':\n"
    "        print('loading', file=sys.stderr, flush=True)\n"
    "        time.sleep(900)\n"
    "    return startup.start(*given)\n"
    "class Server(app.Server):\n"
    "    def __init__(self, *given):\n"
    "        super().__init__(*given, start=load)\n"
    "app.Server = Server\n"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_process_exits_zero(
    bundle_folder: Path, number: signal.Signals
) -> None:
    """Watchers learn NOT_SERVING while a call is in flight; the call is answered; exit code 0.

    The drain limit is far above the test's own: a watcher that held the server would fail it.
    """
    with (
        serving(bundle_folder, "--threads", "1", "--drain-seconds", "900") as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Watch
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING

        work = inference_pb2.EmbedRequest(texts=["a " * 250] * 64)
        call = inference_pb2_grpc.InferenceServiceStub(channel).Embed.future(work)
        # Calls of one connection arrive in order: once this is answered, the other is in flight.
        models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest())
        process.send_signal(number)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not call.done()

        results = call.result(timeout=PATIENCE).results
        assert [len(result.embedding) for result in results] == [4 * 384] * 64
        _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["draining", "stopped"]


def test_a_signal_ends_a_process_that_loads(tiny_bundle: Path) -> None:
    """It has nothing to finish, and may load for minutes."""
    command = [sys.executable, "-c", LOADING + SCRIPT, "serve", str(tiny_bundle)]
    command += ["--address=127.0.0.1:0", "--http-address=off"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "loading\n"
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == Exit.FINISHED
    assert json.loads(log)["event"] == "ended while it started"


def test_a_model_that_is_loaded_does_not_hold_the_process(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "m" / "1")
    command = [sys.executable, "-c", LOADING_ANOTHER + SCRIPT, "serve", "--address=127.0.0.1:0"]
    command += [f"--repository={tmp_path}", "--model-control=poll", "--poll-seconds=0.05"]
    command += ["--calibration-seconds=0.1", "--warmup-seconds=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while '"serving"' not in (line := process.stderr.readline()):
                assert line
            shutil.copytree(tiny_bundle, tmp_path / ".new")
            (tmp_path / ".new").rename(tmp_path / "m" / "2")
            assert process.stderr.readline() == "loading\n"
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == Exit.FINISHED


@pytest.mark.parametrize("twice", [False, True])
def test_a_run_that_never_ends_does_not_hold_the_process(tiny_bundle: Path, *, twice: bool) -> None:
    """Its time is up after --drain-seconds, or with a second signal; the log says what is lost."""
    flags = ("--threads", "1", "--calibration-seconds", "0.1", "--warmup-seconds", "0")
    limits = ("--drain-seconds", "900" if twice else "0", "--loop-run-seconds", "0")
    with (
        serving(tiny_bundle, *flags, *limits, before=STUCK) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        assert process.stderr is not None
        work = inference_pb2.EmbedRequest(texts=["hello"])
        call = inference_pb2_grpc.InferenceServiceStub(channel).Embed.future(work)
        assert process.stderr.readline() == "stuck\n"
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stderr.readline())["event"] == "draining"
        if twice:
            process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
        assert call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[0]["batches_running"] == 1
    if twice:
        assert [line["event"] for line in lines] == ["ended by a second signal"]
        assert process.returncode == 128 + signal.SIGINT
    else:
        assert [line["event"] for line in lines] == ["gave up", "calls were cancelled", "stopped"]
        assert lines[1]["texts"] == 1
        assert process.returncode == Exit.NEVER_ENDED


def test_torch_stays_out(bundle_folder: Path) -> None:
    """The process answers, and never imports torch or transformers; nor HTTP, which is off."""
    with serving(bundle_folder) as (process, address):
        with Client(address) as client:
            assert client.embed(["hello"]).shape == (1, 384)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=PATIENCE)
    modules = json.loads(stdout)
    assert "onnxruntime" in modules
    assert not {"torch", "transformers"} & set(modules)
    assert not {"starlette", "uvicorn", "httptools", "orjson"} & set(modules)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    """One line that says what to do, exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "bertd_client.cli", "serve", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not a bundle" in done.stderr
    assert "bertd export" in done.stderr


def test_an_address_that_is_taken_is_said_so(bundle_folder: Path) -> None:
    """The reason is the system's; the remedy is ours."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "bertd_client.cli", "serve", str(bundle_folder)],
            env={**os.environ, "BERTD_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen on {address}: Address already in use; choose another" in done.stderr


@pytest.mark.parametrize("task", sorted(app.REQUESTS))
def test_the_request_to_paste_is_one_that_the_command_line_takes(task: Task) -> None:
    """Against no server: what fails is the connection, not the options."""
    command = shlex.split(app.REQUESTS[task])
    asked = CliRunner().invoke(main, [*command, "--address", "127.0.0.1:9", "--timeout", "1"])
    assert asked.exit_code == 1
    assert "cannot reach the server" in asked.output
