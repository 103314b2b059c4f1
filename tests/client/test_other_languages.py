"""Clients without bertd-client: stock gRPC through a drain, and the examples of other languages.

Go and Java are built with what Debian has, where that is installed: docs/clients.md names it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_client.connection import channel
from bertd_server.security.keys import new_key
from helpers.key_files import write_keys
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings

EXAMPLES, PROTOS = ROOT / "examples", ROOT / "protos"
INCLUDES = (f"-I{PROTOS}", f"-I{PROTOS / 'googleapis'}")
CONFIG = EXAMPLES / "service_config.json"
KEY = new_key("example")
SAID = """\
32 values
3: texts[1] is empty: send a text with at least one token
{code} EMPTY: texts is empty: send at least one
"""
GO = Path("/usr/share/gocode")
JARS = (
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite"),
    *("grpc-stub", "protobuf", "proto-google-common-protos", "perfmark-api", "guava", "gson"),
    *("geronimo-annotation-1.3-spec", "netty-buffer", "netty-codec", "netty-codec-http"),
    *("netty-codec-http2", "netty-common", "netty-handler", "netty-resolver", "netty-transport"),
)


def test_the_service_config_has_the_retries_of_our_own_client() -> None:
    config = json.loads(CONFIG.read_text())
    _, options = channel.target("a.example:1")
    own = json.loads(str(dict(options)["grpc.service_config"]))
    (theirs,), (ours,) = config.pop("methodConfig"), own.pop("methodConfig")
    policies = [one["retryPolicy"] for one in (theirs, ours)]
    codes = [set(policy.pop("retryableStatusCodes")) for policy in policies]
    assert codes[0] == codes[1]
    assert policies[0] == policies[1]
    assert config == own


def test_a_stock_client_loses_no_call_when_one_of_two_servers_drains(tiny_bundle: Path) -> None:
    """With the service config: a call that reaches a server as its drain begins is CANCELLED."""
    leaving = RunningServer(tiny_bundle, quick_settings(drain_seconds=PATIENCE))
    staying = RunningServer(tiny_bundle, quick_settings())
    gone = threading.Event()
    answered: list[int] = []

    def ask(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
        while True:
            last = gone.is_set()
            response = stub.Embed(pb.EmbedRequest(texts=["hello"]), timeout=PATIENCE)
            answered.append(len(response.results))
            if last:
                return

    def asking() -> None:
        options = [("grpc.service_config", CONFIG.read_text())]
        with grpc.insecure_channel(
            f"ipv4:{leaving.address},{staying.address}", options=options
        ) as channel:
            try:
                ask(inference_pb2_grpc.InferenceServiceStub(channel))
            except grpc.RpcError as error:
                lost.append(error)

    lost: list[grpc.RpcError] = []
    callers = [threading.Thread(target=asking) for _ in range(8)]
    try:
        for caller in callers:
            caller.start()
        while len(answered) < 100 and not lost:
            gone.wait(0.01)
    finally:
        leaving.stop()
        gone.set()
        for caller in callers:
            caller.join()
        staying.stop()
    assert not lost
    assert set(answered) == {1}


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a key."""
    keys = write_keys(tmp_path_factory.mktemp("keys") / "keys.json", {"example": KEY})
    server = RunningServer(tiny_bundle, quick_settings(api_keys=keys))
    yield server.address
    server.stop()


def need(*programs: str | Path) -> None:
    """Skip where something is not installed."""
    for one in programs:
        if not (one.exists() if isinstance(one, Path) else shutil.which(one)):
            pytest.skip(f"{one} is not installed")


def run(*command: str | Path, **environment: str) -> str:
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=10 * PATIENCE,
        env={**os.environ, "SERVICE_CONFIG": str(CONFIG), **environment},
    ).stdout


@pytest.mark.slow
def test_node(address: str, tmp_path: Path) -> None:
    need("node", "npm")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    shutil.copytree(PROTOS, tmp_path / "protos")
    folder = tmp_path / "examples" / "node"
    run("npm", "install", "--silent", "--no-package-lock", "--prefix", folder)
    assert run("node", folder / "embed.js", address, KEY) == SAID.format(code="INVALID_ARGUMENT")


@pytest.mark.slow
def test_go(address: str, tmp_path: Path) -> None:
    grpc_go = GO / "src/google.golang.org/grpc"
    need("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc", grpc_go)
    source = tmp_path / "src"
    source.mkdir()
    given = ["bertd/v1/inference.proto", "bertd/v1/models.proto"]
    run("protoc", *INCLUDES, f"--go_out={source}", f"--go-grpc_out={source}", *given)
    made = run(
        *("go", "run", EXAMPLES / "go/embed.go", address, KEY),
        GO111MODULE="off",
        GOPATH=f"{tmp_path}:{GO}",
        GOCACHE=str(tmp_path / "cache"),
    )
    assert made == SAID.format(code="InvalidArgument")


@pytest.mark.slow
def test_java(address: str, tmp_path: Path) -> None:
    jars = [Path(f"/usr/share/java/{name}.jar") for name in JARS]
    need("javac", "protoc", "grpc_java_plugin", *jars)
    source, classes = tmp_path / "source", tmp_path / "classes"
    source.mkdir()
    given = ["bertd/v1/inference.proto", "google/rpc/status.proto"]
    run(
        *("protoc", *INCLUDES, f"--java_out={source}", f"--grpc-java_out={source}"),
        f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}",
        *(*given, "google/rpc/error_details.proto"),
    )
    path = ":".join(map(str, (classes, *jars)))
    run(
        *("javac", "-nowarn", "-Xlint:-unchecked", "-cp", path, "-d", classes),
        *source.rglob("*.java"),
        EXAMPLES / "java/Embed.java",
    )
    assert run("java", "-cp", path, "Embed", address, KEY) == SAID.format(code="INVALID_ARGUMENT")
