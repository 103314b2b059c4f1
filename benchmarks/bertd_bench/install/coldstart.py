"""From exec to the first right answer: `bertd serve` over gRPC against a PyTorch script."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bertd import bundle
from bertd_client import Client
from bertd_server.system import cpu
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertd_bench.contestants.eager import (
    TOLERANCE,
    BenchError,
    ModelPair,
    eager,
    open_subject,
    server_process,
)
from bertd_bench.harness import machine, report
from bertd_bench.install import minimal_torch

TEXT = "The first answer is the one that people wait for."
SERVER = "bertd serve"
SCRIPT = "PyTorch script"


def server_start(subject: ModelPair, threads: int, expected: NDArray[np.float32]) -> int:
    """Nanoseconds from exec of `bertd serve` until its first answer has come, and is right."""
    begin = time.perf_counter_ns()
    with server_process(subject.bundle, threads) as server:
        server.wait_until_listening()
        with Client(server.address) as client:
            vector = client.embed([TEXT], prompt_name="", timeout=60)[0]
            elapsed = time.perf_counter_ns() - begin
    _check(SERVER, vector, expected)
    return elapsed


def script_start(subject: ModelPair, threads: int, expected: NDArray[np.float32]) -> int:
    """Nanoseconds from exec of the script until its embedding is on standard output."""
    script = str(Path(minimal_torch.__file__))
    begin = time.perf_counter_ns()
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, script, subject.checkpoint, TEXT, str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        line = process.stdout.readline() if process.stdout is not None else b""
        elapsed = time.perf_counter_ns() - begin
    if not line or process.returncode:
        raise BenchError(f"the PyTorch script ended with {process.returncode}")
    _check(SCRIPT, np.array(json.loads(line), np.float32), expected)
    return elapsed


def measure_starts(subject: ModelPair, threads: int, runs: int) -> dict[str, list[int]]:
    """Start both in turn, `runs` times, after one unrecorded start of each."""
    expected = eager(subject.checkpoint, threads)([TEXT])[0]
    starts: dict[str, Callable[[ModelPair, int, NDArray[np.float32]], int]] = {
        SCRIPT: script_start,
        SERVER: server_start,
    }
    samples: dict[str, list[int]] = {name: [] for name in starts}
    for run in range(runs + 1):
        for name, start in starts.items():
            elapsed = start(subject, threads, expected)
            if run:  # the first start fills the file cache
                samples[name].append(elapsed)
    return samples


def _check(name: str, vector: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    if vector.shape != expected.shape or not float(np.abs(vector - expected).max()) <= TOLERANCE:
        raise BenchError(f"the first answer of {name} is not that of PyTorch eager")


def cold_start(model: str | None, threads: int | None, runs: int) -> report.Report:
    """Compare the time from exec to the first right answer.

    Raises:
        BenchError: a start failed, or its answer is wrong.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    with open_subject(model) as subject:
        tokenizer = Tokenizer.from_file(str(subject.bundle / bundle.TOKENIZER_NAME))
        samples = measure_starts(subject, threads, runs)
        name = bundle.read_manifest(subject.bundle).name
    return report.Report(
        benchmark="cold-start",
        model=name if model is None else model,
        threads=threads,
        baseline=SCRIPT,
        machine=here,
        cases=[
            report.case_result(
                "exec to first answer",
                len(tokenizer.encode(TEXT)),
                samples,
                baseline=SCRIPT,
            )
        ],
    )
