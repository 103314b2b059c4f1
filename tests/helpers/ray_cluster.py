"""Ray on this machine, with bertd behind its gRPC proxy: a program, as a process of its own.

``python tests/helpers/ray_cluster.py '{"bundle": …}'`` deploys what the arguments of
`bertd_ray.serve.application` say. It says `{"port": …}` once calls are answered, then reads a line
of JSON for each command and answers with one:

    {"deploy": {…}}     deploys anew, with other arguments
    {"replicas": true}  the process ids of the replicas
    {"proxies": true}   those of the proxies
    {"embed": [texts]}  asks through a handle, as another deployment would; vectors as hexadecimal
    {"end": true}
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from bertd_ray.serve import application, grpc_options
from ray import serve

NAME = f"bertd{os.getpid()}"  # others may have clusters here too

PID = str(os.getpid())
_TRIES = 6


def main() -> None:
    """Run until the commands end."""
    port, http = _free(), _free()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray writes is not for the reader of answers
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        _start(folder)
        serve.start(
            grpc_options=grpc_options(port), http_options={"host": "127.0.0.1", "port": http}
        )
        try:
            handle = _deploy(json.loads(sys.argv[1]))
            answers.write(json.dumps({"port": port, "http": http}) + "\n")
            for line in sys.stdin:
                command = json.loads(line)
                if "end" in command:
                    break
                answers.write(json.dumps(_done(command, handle)) + "\n")
        finally:
            serve.shutdown()
            ray.shutdown()


def _start(folder: str) -> None:
    """Start Ray, which gives itself 30 s: too few on a machine that others keep busy."""
    for left in reversed(range(_TRIES)):
        try:
            ray.init(
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=200 * 2**20,
                _temp_dir=folder,
            )
        except Exception:  # it has no class of its own
            if not left:
                raise
            ray.shutdown()
        else:
            return


def _deploy(arguments: dict[str, Any]) -> Any:
    return serve.run(application(**arguments), name=NAME)


def _done(command: dict[str, Any], handle: Any) -> Any:
    if "deploy" in command:
        _deploy(command["deploy"])
        return True
    if "embed" in command:
        try:
            return bytes(handle.embed.remote(command["embed"]).result()).hex()
        except Exception as error:  # noqa: BLE001 - its kind is what is asked for
            cause = getattr(error, "cause", error)
            return {"error": type(cause).__name__, "message": getattr(cause, "message", "")}
    return _processes("ray::ProxyActor") if "proxies" in command else _replicas()


def _replicas() -> list[int]:
    return _processes(f"ray::ServeReplica:{NAME}:")


def _processes(title: str) -> list[int]:
    """Of this cluster: its processes are children of a child of this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(title.encode()):
                found += [int(process.name)] if _parent(_parent(process.name)) == PID else []
        except OSError:  # it has ended
            continue
    return found


def _parent(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]


def _free() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    main()
