"""The balancers of deploy/, each started with its file in front of servers on free ports.

The files name two servers, at 8001 and 8011, with their HTTP ports at 8002 and 8012, each in a line
of its own; the balancer listens at 8000. Those numbers are replaced, and the second server's line
is repeated for a third.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from bertd_bench.contestants.hosted import free_port
from helpers.deployed import DEPLOY

LISTENS = 8000
SERVERS = ((8001, 8002), (8011, 8012), (8021, 8022))
OTHERS = (9901, 2019, 8003)  # administration, and a port that Caddy needs
START_SECONDS = 60.0

# Debian's nginx.conf, as far as its conf.d needs it; folders that only root may write are moved.
NGINX = """daemon off; worker_processes 1; pid {0}/pid; error_log {0}/log notice;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  include {1};
}}
"""


@dataclass(frozen=True, slots=True)
class Balancer:
    """One of deploy/.

    Attributes:
        name: of the program, as it lies in the PATH, and of its folder.
        file: in deploy/.
        check: arguments that have it read a file at {} and end.
        run: arguments that have it run with one in the foreground.
    """

    name: str
    file: Path
    check: tuple[str, ...]
    run: tuple[str, ...]

    @property
    def program(self) -> str | None:
        """Its path, if it is installed; Debian's nginx is not in every PATH."""
        return shutil.which(self.name) or shutil.which(self.name, path="/usr/sbin:/usr/local/sbin")

    def written(self, folder: Path, ports: Mapping[int, int], servers: int = 2) -> Path:
        """Its file in a folder, with other ports, for so many servers."""
        text = with_ports(self.file.read_text(encoding="utf-8"), ports, servers)
        path = folder / self.file.name
        path.write_text(text, encoding="utf-8")
        if self.name != "nginx":
            return path
        main = folder / "nginx.conf"
        main.write_text(NGINX.format(folder, path), encoding="utf-8")
        return main


BALANCERS = {
    one.name: one
    for one in (
        Balancer(
            "envoy",
            DEPLOY / "envoy/envoy.yaml",
            ("--mode", "validate", "-c", "{}"),
            ("--concurrency", "1", "-l", "error", "--use-dynamic-base-id", "-c", "{}"),
        ),
        Balancer(
            "haproxy", DEPLOY / "haproxy/haproxy.cfg", ("-c", "-f", "{}"), ("-db", "-f", "{}")
        ),
        Balancer("nginx", DEPLOY / "nginx/bertd.conf", ("-t", "-c", "{}"), ("-c", "{}")),
        Balancer(
            "caddy",
            DEPLOY / "caddy/Caddyfile",
            ("validate", "--adapter", "caddyfile", "--config", "{}"),
            ("run", "--adapter", "caddyfile", "--config", "{}"),
        ),
    )
}


def with_ports(text: str, ports: Mapping[int, int], servers: int) -> str:
    """A file of deploy/ with other ports, and as many servers."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if servers > 2 and re.search(r"\b8011\b", line):
            lines.append(line.replace("8011", "8021").replace("8012", "8022"))
    names = "|".join(map(str, ports))
    replaced = (re.sub(rf"\b({names})\b", lambda m: str(ports[int(m[0])]), one) for one in lines)
    return "\n".join(replaced) + "\n"


@contextmanager
def balancing(
    balancer: Balancer, servers: Sequence[tuple[int, int]], folder: Path
) -> Iterator[str]:
    """Run a balancer, which must be installed, and give the address at which it answers.

    Args:
        balancer: one of BALANCERS.
        servers: two or three: the ports of gRPC and of HTTP.
        folder: for its file, and for what it writes.
    """
    ports = {LISTENS: free_port(), **{port: free_port() for port in OTHERS}}
    for named, real in zip(SERVERS, servers, strict=False):
        ports |= dict(zip(named, real, strict=True))
    program = balancer.program
    assert program is not None, f"{balancer.name} is not installed"
    path = balancer.written(folder, ports, len(servers))
    with (folder / "output").open("wb") as sink:
        process = subprocess.Popen(
            [program, *(one.format(path) for one in balancer.run)], stdout=sink, stderr=sink
        )
    address = f"127.0.0.1:{ports[LISTENS]}"
    try:
        with grpc.insecure_channel(address) as channel:
            ready = grpc.channel_ready_future(channel)
            end = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, (folder / "output").read_text()[-2000:]
                assert time.monotonic() < end, f"{balancer.name} does not listen"
                try:
                    ready.result(timeout=0.1)
                    break
                except grpc.FutureTimeoutError:
                    continue
        yield address
    finally:
        process.terminate()
        process.wait()
