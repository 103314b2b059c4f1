"""The balancers of deploy/: each reads its file, and moves calls away from a server that dies."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.contestants.hosted import free_port
from helpers.balanced import BALANCERS, LISTENS, OTHERS, SERVERS, Balancer, balancing
from helpers.deployed import port
from helpers.patience import PATIENCE
from helpers.restartable import RestartableServer

NO_RETRIES = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
CALLS = 40
TRUNCATE = inference_pb2.LONG_TEXT_POLICY_TRUNCATE


def installed(name: str) -> Balancer:
    """A balancer, or a skip that says what is missing."""
    balancer = BALANCERS[name]
    if balancer.program is None:
        pytest.skip(f"needs {name} in the PATH")
    return balancer


@pytest.mark.parametrize("name", BALANCERS)
def test_its_servers_are_where_bertd_listens(name: str) -> None:
    """The first has the default ports; all ports of the file are known to those who change them."""
    text = BALANCERS[name].file.read_text(encoding="utf-8")
    named = {int(one) for one in re.findall(r"(?:127\.0\.0\.1:|port(?:_value:)? )(\d+)", text)}
    assert named <= {LISTENS, *OTHERS, *(one for both in SERVERS for one in both)}
    assert {LISTENS, SERVERS[0][0], SERVERS[1][0]} <= named
    assert SERVERS[0] == (port("address"), port("http_address"))


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.slow
def test_it_takes_its_file(name: str, servers: int, tmp_path: Path) -> None:
    balancer = installed(name)
    path = balancer.written(tmp_path, {LISTENS: free_port()}, servers)
    done = subprocess.run(
        [str(balancer.program), *(one.format(path) for one in balancer.check)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pair(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[RestartableServer, tuple[int, int]]]]:
    """Two servers, and their ports of gRPC and HTTP."""
    folder = tmp_path_factory.mktemp("pair")
    found = []
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            http = free_port()
            flags = ["--warmup-seconds", "0", "--calibration-seconds", "0.1", "--lanes", "1"]
            flags += ["--http-address", f"127.0.0.1:{http}", "--cache-folder", str(folder)]
            server = RestartableServer(
                [str(tiny_bundle), "--name", name, *flags], folder / f"{name}.log"
            )
            stack.callback(server.close)
            server.start()
            found.append((server, (int(server.address.rpartition(":")[2]), http)))
        yield found


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.slow
def test_calls_go_to_both_servers_and_on_when_one_is_killed(
    name: str, pair: list[tuple[RestartableServer, tuple[int, int]]], tmp_path: Path
) -> None:
    """Without retries of the client; 2 MB pass too, which nginx's default refuses."""
    balancer = installed(name)
    (first, _), _ = pair
    if not first.running:
        first.start()
    with (
        balancing(balancer, [ports for _, ports in pair], tmp_path) as address,
        grpc.insecure_channel(address, options=NO_RETRIES) as channel,
    ):
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)

        def ask(*texts: str) -> str:
            request = inference_pb2.EmbedRequest(texts=texts, long_text=TRUNCATE)
            return str(stub.Embed(request, timeout=PATIENCE).model)

        end, seen = time.monotonic() + PATIENCE, set[str]()
        while seen != {"one", "two"}:  # until it knows that both are well
            assert time.monotonic() < end, seen
            with contextlib.suppress(grpc.RpcError):
                seen.add(ask("the cat"))
        assert ask(*["the cat sat " * 3_000] * 56) in seen
        first.end(signal.SIGKILL)
        assert {ask(f"the mat {number}") for number in range(CALLS)} == {"two"}
