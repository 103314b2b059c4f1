"""CPU of a server for a call over HTTP, beside the same call over gRPC, in turns.

Without the lane, the busiest thread, it is what a protocol costs: all but the model's run.

.venv/bin/python tests/tools/http_cost.py BUNDLE [--turns 7]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc

TEXT = "how much does one more protocol cost the server that answers it?"
COUNTS = {1: 200, 32: 20}  # texts of a call, calls of a turn
TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> Counter[str]:
    """User and system time of each thread of a process."""
    found: Counter[str] = Counter()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        found[thread.name] = int(fields[11]) + int(fields[12])
    return found


def callers(grpc_port: int, http_port: int, texts: int) -> dict[str, Callable[[], None]]:
    """What makes a call, by protocol."""
    stub = inference_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
    connection = http.client.HTTPConnection("127.0.0.1", http_port)
    given = [f"{TEXT} {number}" for number in range(texts)]
    request = inference_pb2.EmbedRequest(texts=given)

    def over_grpc() -> None:
        stub.Embed(request)

    def posted(**options: str) -> Callable[[], None]:
        body = json.dumps({"input": given, **options})

        def call() -> None:
            connection.request("POST", "/v1/embeddings", body)
            response = connection.getresponse()
            response.read()
            assert response.status == 200

        return call

    return {
        "gRPC": over_grpc,
        "HTTP, floats": posted(),
        "HTTP, base64": posted(encoding_format="base64"),
    }


def main() -> None:
    """Serve, ask in turns, and say what a call costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    ports = free_port(), free_port()
    command = [Path(sys.executable).with_name("bertd"), "serve", given.bundle]
    with tempfile.TemporaryDirectory() as scratch:
        flags = [
            *("--address", f"127.0.0.1:{ports[0]}", "--http-api", f"127.0.0.1:{ports[1]}"),
            *("--http-address", "off", "--cache-folder", scratch),
            *("--threads", "1", "--lanes", "1"),  # threads that spin would hide all else
            *("--first-calibration-seconds", "5", "--calibration-seconds", "5"),
        ]
        server = subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
                grpc.channel_ready_future(channel).result(120)
            wait_until_ready(ports[1])
            for texts, calls in COUNTS.items():
                report(server.pid, callers(*ports, texts), texts, calls, given.turns)
        finally:
            server.terminate()
            server.wait()


def wait_until_ready(port: int) -> None:
    """Wait until the models are loaded."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/health")
        if connection.getresponse().status == 200:
            return
        time.sleep(0.2)


def report(
    pid: int, asked: dict[str, Callable[[], None]], texts: int, calls: int, turns: int
) -> None:
    """Make the calls in turns; print the median of each protocol, and of its share."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for turn in range(turns + 1):
        for name, call in asked.items():
            begin = cpu_seconds(pid)
            for _ in range(calls):
                call()
            if turn:  # the first one warms up
                taken = cpu_seconds(pid) - begin
                whole, lane = sum(taken.values()), max(taken.values())
                spent[name].append((whole / TICK / calls, (whole - lane) / TICK / calls))
    for name, seconds in spent.items():
        pairs = list(zip(seconds, spent["gRPC"], strict=True))
        whole_ratio = statistics.median(one[0] / other[0] for one, other in pairs)
        rest_ratio = statistics.median(one[1] / other[1] for one, other in pairs)
        whole_ms, rest_ms = (1e3 * statistics.median(part) for part in zip(*seconds, strict=True))
        print(
            f"{texts:3} texts  {name:14} {whole_ms:7.3f} ms CPU a call, {whole_ratio:.2f} of gRPC;"
            f" without the lane {rest_ms:7.3f} ms, {rest_ratio:.2f} of gRPC"
        )


if __name__ == "__main__":
    main()
