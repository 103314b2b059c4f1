"""The process of one contestant: commands come in on a pipe as lines of JSON, answers go out.

::

    {"do": "build", peer, setting}      -> {}, or {"unavailable": reason}
    {"do": "load", index, texts, lengths}  -> {}
    {"do": "answers", index, handling}  -> {"rows": one list of numbers a text}
    {"do": "choose", index, calls}      -> {"milliseconds": {handling: median}}
    {"do": "turn", index, repeats, handling} -> {"samples": nanoseconds}

It limits itself to its cores before a library can count them. What libraries print goes to
standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from importlib import metadata
from statistics import median
from typing import IO, Any

PROBE = "--probe"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_VERSIONS = (
    "torch", "transformers", "tokenizers", "numpy", "onnxruntime", "optimum", "optimum-onnx",
    "optimum-intel", "sentence-transformers", "openvino", "nncf", "ctranslate2", "infinity-emb",
    "fastembed",
)  # fmt: skip


def thread_variables(threads: int) -> dict[str, str]:
    """What tells libraries that ask the environment to use so many threads, and no network."""
    counted = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in counted},
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "RAYON_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def limit_threads(threads: int) -> None:
    """Only so many cores, and libraries that ask the environment are told the same."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)
    os.environ.update(thread_variables(threads))


def end_with_parent() -> None:
    """Die when the harness does, on Linux: who is stopped would else never see its pipe close."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def versions() -> dict[str, str]:
    """Of the packages that may decide a time, as far as they are installed."""
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Worker:
    """One contestant and its samples."""

    def __init__(self) -> None:
        self._answer: Any = None
        self._handles = True
        self._samples: dict[int, tuple[list[str], list[int]]] = {}

    def build(self, peer: str, setting: dict[str, Any]) -> dict[str, Any]:
        """Make the contestant ready."""
        from bertd_bench.contestants.catalogue import PEERS
        from bertd_bench.contestants.peer import PeerUnavailable, Setting

        chosen = PEERS[peer]
        setting["calibration"] = tuple(setting["calibration"])
        try:
            self._answer = chosen.build(Setting(**setting))
        except PeerUnavailable as reason:
            return {"unavailable": str(reason)}
        self._handles = chosen.handles
        return {}

    def load(self, index: int, texts: list[str], lengths: list[int]) -> dict[str, Any]:
        """Take a sample: texts of one call, and their tokens."""
        self._samples[index] = (texts, lengths)
        return {}

    def answers(self, index: int, handling: str) -> dict[str, Any]:
        """What the contestant says of each text."""
        import numpy as np

        rows = [np.asarray(row, np.float32) for row in self._call(index, handling)()]
        return {"rows": [[list(row.shape), row.ravel().tolist()] for row in rows]}

    def choose(self, index: int, calls: int) -> dict[str, Any]:
        """Median of so many calls in each way of handling that could suit; two go before."""
        from bertd_bench.contestants.handling import AS_GIVEN, worth_trying
        from bertd_bench.harness.system import timed

        ways = worth_trying(self._samples[index][1]) if self._handles else [AS_GIVEN]
        found = {way: median(timed(self._call(index, way), calls + 2)[2:]) / 1e6 for way in ways}
        return {"milliseconds": found}

    def turn(self, index: int, repeats: int, handling: str) -> dict[str, Any]:
        """Time so many calls."""
        from bertd_bench.harness.system import timed

        return {"samples": timed(self._call(index, handling), repeats)}

    def _call(self, index: int, handling: str) -> Any:
        from bertd_bench.contestants.handling import AS_GIVEN, HANDLERS

        texts, lengths = self._samples[index]
        if handling == AS_GIVEN:  # nothing of ours between the clock and the contestant
            return lambda: self._answer(texts)
        handler = HANDLERS[handling]
        return lambda: handler(self._answer, texts, lengths)


def serve(commands: IO[str], answers: IO[str]) -> None:
    """Do what is asked until the pipe closes."""
    worker = Worker()
    for line in commands:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 - whatever a library raises is a reason to skip it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Run as ``python -m bertd_bench.contestants.worker THREADS`` or with `--probe`."""
    if sys.argv[1] == PROBE:
        from bertd_bench.contestants.catalogue import PEERS

        missing = {name: peer.missing() for name, peer in PEERS.items()}
        sys.stdout.write(json.dumps({"missing": missing, "versions": versions()}))
        return
    end_with_parent()
    limit_threads(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            serve(sys.stdin, answers)
        finally:
            from bertd_bench.contestants import ours

            ours.running.close()


if __name__ == "__main__":
    main()
