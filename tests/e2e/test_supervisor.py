"""`bertd serve --supervise`, and the process under systemd: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_server.process.supervisor import Failures
from bertd_server.system.exits import Exit
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.patience import PATIENCE
from helpers.serve_process import STUCK, serving

QUICK = ("--threads", "1", "--lanes", "1", "--calibration-seconds", "0.1", "--warmup-seconds", "0")

# Once it listens, the process has 600 MiB more.
GROWS = (
    "from bertd_server.process import app\n"
    "load = app.Server.load\n"
    "async def grow(server):\n"
    "    await load(server)\n"
    "    server.more = bytearray(b'x') * (600 * 2**20)\n"
    "app.Server.load = grow\n"
)

# A child that takes signals, is ready, says who it is, and gives signs of life until it is told to
# end; each one more writes a line into a file, by which it knows how many came before it.
CHILD = """
import os, signal, socket, sys
parent = socket.socket(fileno=int(os.environ["BERTD_SUPERVISOR"]))
with open(sys.argv[1], "a+") as starts:
    starts.write("x\\n")
    starts.seek(0)
    count = len(starts.readlines())
def on_signal(number, frame):
    print(json.dumps({"child": number}), flush=True)
    if number == signal.SIGTERM:
        os._exit(3)
import json
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, on_signal)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
codes = sys.argv[2].split(",")
if codes[0] != "1":
    parent.sendall(b"READY=1\\nSTATUS=x\\0")
print(json.dumps({"start": count, "pid": os.getpid()}), flush=True)
if count <= len(codes) and codes[count - 1]:
    os._exit(int(codes[count - 1]))
while True:
    signal.sigtimedwait([signal.SIGUSR1], 0.05)
    parent.sendall(b"WATCHDOG=1\\0")
"""


@contextmanager
def supervised(
    folder: Path, codes: str, *, failures: int = 5, watchdog: float = 0, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A supervisor of that child, which exits with these codes, one for each start."""
    options = [str(failures), "300", str(watchdog)]
    child = [sys.executable, "-c", CHILD, str(folder / "starts"), codes]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bertd_server.process.supervisor", *options, *child],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: Any) -> dict[str, Any]:
    """The next line of a log."""
    found: dict[str, Any] = json.loads(stream.readline())
    return found


def test_the_pause_grows_with_failures_until_they_are_too_many() -> None:
    """The first restart is immediate; what lies before the window is forgotten."""
    it = Failures(5, 100)
    assert [it.pause(0), it.pause(1), it.pause(2), it.pause(3)] == [0, 1, 2, 4]
    assert it.pause(102.5) == 1
    assert [it.pause(103), it.pause(103), it.pause(103)] == [2, 4, None]
    assert Failures(1, 100).pause(0) is None
    many = Failures(99, 1e9)
    assert max(many.pause(0) or 0 for _ in range(98)) == 30


@pytest.mark.parametrize(
    ("codes", "code", "starts"), [("0", 0, 1), ("2", 2, 1), ("1", 1, 1), ("75,75", 75, 2)]
)
def test_a_child_that_is_done_or_fails_too_often_ends_it(
    tmp_path: Path, codes: str, code: int, starts: int
) -> None:
    """With the last child's exit code; misuse, and a first start in vain, are not tried again."""
    with supervised(tmp_path, codes, failures=2) as process:
        stdout, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert len(stdout.splitlines()) == starts
    events = [json.loads(each)["event"] for each in log.splitlines()]
    assert (
        events
        == ["the server is restarted", "gave up: the server failed too often"][: 2 * (starts - 1)]
    )


def test_a_child_that_stands_still_is_killed_and_systemd_hears_of_the_service_alone(
    tmp_path: Path,
) -> None:
    """SIGSTOP: no sign of life comes. SIGHUP and SIGTERM reach the next one, once each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        notify = str(tmp_path / "notify")
        with supervised(tmp_path, "", watchdog=2.0, NOTIFY_SOCKET=notify) as process:
            first = line(process.stdout)
            assert systemd.recv(99) == b"READY=1\nSTATUS=x"
            os.kill(first["pid"], signal.SIGSTOP)
            assert line(process.stderr)["event"] == "no sign of life: the server is killed"
            assert line(process.stderr)["exit_code"] == 128 + signal.SIGKILL
            assert systemd.recv(99) == b"STATUS=restarting"
            second = line(process.stdout)
            assert second["start"] == 2
            assert systemd.recv(99) == b"READY=1\nSTATUS=x"
            process.send_signal(signal.SIGHUP)
            assert line(process.stdout) == {"child": signal.SIGHUP}
            process.send_signal(signal.SIGTERM)
            assert line(process.stdout) == {"child": signal.SIGTERM}
            assert process.wait(PATIENCE) == Exit.CANCELLED
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(99)  # the child's signs of life were not passed on


def test_the_supervisor_imports_nothing_heavy() -> None:
    """It stays for as long as the server: the standard library, and little of that."""
    script = (
        "import sys, bertd_server.process.supervisor\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path = {sys.path!r}\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) - {"__main__"} == {"bertd", "bertd_server"}


def asked_until_stuck(
    process: subprocess.Popen[str], channel: grpc.Channel
) -> tuple[Any, dict[str, Any]]:
    """A call of one text whose run never ends, and what the server says of it first."""
    work = inference_pb2.EmbedRequest(texts=["hello"])
    call = inference_pb2_grpc.InferenceServiceStub(channel).Embed.future(work)
    assert process.stderr is not None
    assert process.stderr.readline() == "stuck\n"
    return call, line(process.stderr)


def test_a_stuck_lane_restarts_the_server(tiny_bundle: Path) -> None:
    """Not ready, drained for a limited time, ended with a code, started anew; then a clean end."""
    limits = ("--watchdog-seconds", "3", "--drain-seconds", "0", "--loop-run-seconds", "0")
    flags = (*QUICK, "--supervise", *limits)
    with (
        serving(tiny_bundle, *flags, before=STUCK) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        call, found = asked_until_stuck(process, channel)
        assert (found["event"], found["sequences"]) == ("a lane is stuck", 1)
        assert call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        assert process.stderr is not None
        events: list[dict[str, Any]] = []
        while not events or events[-1]["event"] != "serving":
            events.append(line(process.stderr))
        restarted = next(one for one in events if one["event"] == "the server is restarted")
        assert (restarted["exit_code"], restarted["pause_seconds"]) == (Exit.RESTART, 0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.FINISHED


def test_a_stuck_event_loop_ends_the_server_to_be_restarted(tiny_bundle: Path) -> None:
    """A lone text runs there, and its run never ends."""
    flags = (*QUICK, "--watchdog-seconds", "1", "--loop-run-seconds", "0.1")
    with (
        serving(tiny_bundle, *flags, before=STUCK) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        call, found = asked_until_stuck(process, channel)
        assert found["event"] == "the event loop is stuck"
        assert found["stood_seconds"] > 1
        assert process.wait(PATIENCE) == Exit.RESTART
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_memory_beyond_its_limit_ends_the_server_to_be_restarted(tiny_bundle: Path) -> None:
    """Something outside the batches has grown, which no limit of batches prevents."""
    limit = ("--memory-limit", "500MiB", "--watchdog-seconds", "0.4")
    with serving(tiny_bundle, *QUICK, *limit, before=GROWS) as (process, _):
        assert process.stderr is not None
        found = line(process.stderr)
        assert (found["event"], found["limit"]) == ("memory beyond its limit", "500 MiB")
        assert "--memory-limit" in found["remedy"]
        assert process.wait(PATIENCE) == Exit.RESTART


def test_a_process_under_systemd_reloads_and_waits_for_balancers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """SIGHUP, once with a good file and once with a broken one; calls are answered to the end."""
    file = tmp_path / "bertd.toml"
    file.write_text("drain_delay_seconds = 1\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        managed = f"import os\nos.environ['NOTIFY_SOCKET'] = {str(tmp_path / 'notify')!r}\n"
        flags = (*QUICK, "--config", str(file))
        with (
            serving(tiny_bundle, *flags, before=managed) as (process, address),
            grpc.insecure_channel(address) as channel,
        ):
            ready = systemd.recv(99)
            assert ready == b"READY=1\nSTATUS=serving tiny"
            file.write_text('drain_delay_seconds = 900\nprofile = "efficient"\nlog_level = "debug"')
            process.send_signal(signal.SIGHUP)
            reloaded = line(process.stderr)
            assert reloaded["settings"] == {"drain_delay_seconds": "900.0", "log_level": "debug"}
            assert reloaded["needs_restart"] == ["profile"]
            assert systemd.recv(99).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(99) == ready
            file.write_text("drain_delay_second = 1\n")
            process.send_signal(signal.SIGHUP)
            assert "did you mean drain_delay_seconds?" in line(process.stderr)["error"]
            assert line(process.stderr)["failed"] == ["settings"]

            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            assert stub.Embed(inference_pb2.EmbedRequest(texts=["hello"])).results[0].embedding
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 128 + signal.SIGINT


def test_a_server_whose_supervisor_was_killed_drains(tiny_bundle: Path) -> None:
    """It does not stay behind, holding the address."""
    with serving(tiny_bundle, *QUICK, "--supervise") as (process, _):
        process.kill()
        assert process.stderr is not None
        events = [json.loads(each)["event"] for each in process.stderr]  # until all have ended
    assert events == ["the supervisor is gone", "draining", "stopped"]
