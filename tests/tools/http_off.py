"""What HTTP costs a server that does not have it: imports, memory, CPU of a call over gRPC.

.venv/bin/python tests/tools/http_off.py BUNDLE [CHECKOUT…] [--turns 9]

In turns: this checkout without `--http-api`, with it, and others, such as one from before there was
HTTP (`git worktree add ../before COMMIT`), without. Ratios are medians of each turn's.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tools.http_cost import TEXT, TICK, cpu_seconds, free_port  # noqa: E402 - found there

CALLS = 200  # of a turn
SERVING = health_pb2.HealthCheckResponse.SERVING
PACKAGES = ("protos", "export", "server", "client")
ENTRY = """
import atexit, sys
from pathlib import Path
from bertd_client.cli import main
atexit.register(lambda: Path({file!r}).write_text("\\n".join(sorted(sys.modules))))
main()
"""


class Tried:
    """A server, stopped but in its turns."""

    def __init__(self, name: str, checkout: Path, bundle: str, scratch: Path, *flags: str) -> None:
        """Start it, and wait until it answers."""
        self.name = name
        self._modules = scratch / f"{name}.modules"
        address = f"127.0.0.1:{free_port()}"
        command = [
            *(sys.executable, "-c", ENTRY.format(file=str(self._modules)), "serve", bundle),
            *("--address", address, "--http-address", "off", "--cache-folder", str(scratch)),
            *("--threads", "1", "--lanes", "1", "--calibration-seconds", "1", *flags),
        ]
        paths = os.pathsep.join(str(checkout / one) for one in PACKAGES)
        env = {**os.environ, "PYTHONPATH": paths}
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(channel).result(300)
        health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Check
        while health.Check(health_pb2.HealthCheckRequest()).status != SERVING:
            time.sleep(0.2)
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.process.send_signal(signal.SIGSTOP)

    def turn(self) -> float:
        """CPU of a call, in ms."""
        self.process.send_signal(signal.SIGCONT)
        before = cpu_seconds(self.process.pid)
        for number in range(CALLS):
            self._stub.Embed(inference_pb2.EmbedRequest(texts=[f"{TEXT} {number}"]))
        spent = (cpu_seconds(self.process.pid) - before).total()
        self.process.send_signal(signal.SIGSTOP)
        return 1e3 * spent / TICK / CALLS

    def memory(self) -> float:
        """Resident, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = next(line for line in lines if line.startswith("VmRSS"))
        return int(found.split()[1]) / 1024

    def end(self) -> int:
        """End it; how many modules it had imported."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()
        return len(self._modules.read_text().splitlines())


def main() -> None:
    """Serve, ask in turns, and say what each has taken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        on = "--http-api", f"127.0.0.1:{free_port()}"
        tried = [
            Tried("off", ROOT, given.bundle, scratch),
            Tried("on", ROOT, given.bundle, scratch, *on),
            *(Tried(one.name, one.resolve(), given.bundle, scratch) for one in given.checkouts),
        ]
        spent: dict[str, list[float]] = {one.name: [] for one in tried}
        for turn in range(given.turns + 1):
            for one in tried:
                found = one.turn()
                if turn:  # the first one warms up
                    spent[one.name].append(found)
        for one in tried:
            pairs = zip(spent[one.name], spent["off"], strict=True)
            ratio = statistics.median(mine / off for mine, off in pairs)
            memory = one.memory()
            print(
                f"{one.name:10} {statistics.median(spent[one.name]):7.3f} ms CPU a call, "
                f"{ratio:.3f} of off; {memory:6.1f} MiB; {one.end()} modules"
            )


if __name__ == "__main__":
    main()
