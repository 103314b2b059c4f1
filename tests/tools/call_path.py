"""How many of our files and functions one Embed passes: ``python tests/tools/call_path.py``.

A server of a small random model answers one call to warm up; the next one is traced in all of its
threads, from the gRPC handler to the answer. A function counts once, however often it is called; a
change of file is a call from one of our files into another.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import grpc.aio
from bertd.v1 import inference_pb2
from bertd.v1.inference_pb2_grpc import InferenceServiceStub
from bertd_bench.contestants.checkpoints import save_random
from bertd_export.bundle import export_model
from bertd_server.config.settings import Settings
from bertd_server.serving.server import Server

OURS = ("bertd_server", "bertd")


class Trail:
    """Calls of our functions, in order, from every thread."""

    def __init__(self, package: Callable[[str], str | None]) -> None:
        self._package = package
        self.calls: list[CodeType] = []
        self.changes = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Hear of a call, as :func:`sys.setprofile` tells it."""
        if event != "call" or self._package(frame.f_code.co_filename) is None:
            return
        self.calls.append(frame.f_code)
        caller = frame.f_back
        while caller is not None and self._package(caller.f_code.co_filename) is None:
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != frame.f_code.co_filename:
            self.changes += 1


def package_of(file: str) -> str | None:
    """Which of our packages a file belongs to; None for others' and for generated ones."""
    parts = Path(file).parts
    if file.endswith(("_pb2.py", "_pb2_grpc.py")):
        return None
    return next((name for name in OURS if name in parts), None)


async def trace(bundle: Path) -> Trail:
    """Answer two calls, the second one traced."""
    settings = Settings(
        address="127.0.0.1:0",
        http_address="off",
        warmup_seconds=0,
        calibration_seconds=0.05,
        lanes=1,
        threads=1,
    )
    trail = Trail(package_of)
    threading.setprofile(lambda *event: trail(*event) if active else None)
    active = False
    server = Server(bundle, settings)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        embed = InferenceServiceStub(channel).Embed
        for number in range(2):
            active = number == 1
            await asyncio.sleep(0.1)  # lanes rest: the next call is a lone one
            sys.setprofile(trail if active else None)
            await embed(inference_pb2.EmbedRequest(texts=[f"text {number}"]))
            sys.setprofile(None)
        active = False
    threading.setprofile(None)
    await server.drain()
    return trail


def main() -> None:
    """Print the counts, and with ``-v`` every function in the order of its first call."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_random("bert", "feature-extraction", "tiny", folder / "checkpoint")
        export_model(str(folder / "checkpoint"), folder / "bundle", name="tiny")
        trail = asyncio.run(trace(folder / "bundle"))
    functions = list(dict.fromkeys(trail.calls))
    files = {code.co_filename for code in functions}
    print(f"one Embed passes {len(files)} files and {len(functions)} functions;")
    print(f"{len(trail.calls)} calls, {trail.changes} of them into another file")
    if "-v" in sys.argv:
        for code in functions:
            print(f"  {Path(code.co_filename).stem}.{code.co_qualname}:{code.co_firstlineno}")


if __name__ == "__main__":
    main()
