"""The examples, run as they stand in examples/, with real clients."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd_client import BertdError, Client
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.paths import ROOT
from helpers.patience import PATIENCE

EXAMPLES = ROOT / "examples"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of their own, so that the examples leave nothing behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(name: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *folders],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )


@pytest.mark.usefixtures("environment")
def test_asyncio(tiny_bundle: Path) -> None:
    said = run("inside_asyncio.py", tiny_bundle, tiny_bundle)
    assert re.search(r"^model-1: \(2, \d+\) float32$", said.stdout, re.MULTILINE)
    assert "refused: texts[1] is empty" in said.stdout
    assert not said.stderr


@pytest.mark.usefixtures("environment")
def test_threads(tiny_bundle: Path) -> None:
    said = run("inside_sync.py", tiny_bundle)
    assert said.stdout.startswith("32 vectors of ")
    assert "refused: texts[1]: empty" in said.stdout
    assert "INFO:bertd:" in said.stderr


@pytest.mark.usefixtures("environment")
def test_a_server_of_ones_own(tiny_bundle: Path) -> None:
    """Their service and ours on one port, health of both, and an end that lets streams go."""
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "own_grpc_server.py", tiny_bundle],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel, Client(address) as client:
            hello = channel.unary_unary(
                "/example.Greeter/SayHello",
                request_serializer=StringValue.SerializeToString,
                response_deserializer=StringValue.FromString,
            )
            assert hello(StringValue(value="you")).value == "hello you"
            assert len(client.embed(["the cat"])) == 1
            with pytest.raises(BertdError, match=r"texts\[0\] is empty"):
                client.embed([" "])
            raw: Any = channel.unary_unary("/bertd.v1.InferenceService/Embed")
            with pytest.raises(grpc.RpcError) as refused:
                raw(b"\xff")
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

            health: Any = health_pb2_grpc.HealthStub(channel)
            names = ["", "example.Greeter", "bertd.v1.InferenceService", "models/tiny"]
            watched = [
                health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
                for name in names
            ]
            serving = health_pb2.HealthCheckResponse.SERVING
            assert [next(each).status for each in watched] == [serving] * 4
            server.send_signal(signal.SIGTERM)
            left = health_pb2.HealthCheckResponse.NOT_SERVING
            assert [[one.status for one in each] for each in watched] == [[left]] * 4
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.communicate()
