"""From exec to the first right answer: `bertd serve` over gRPC against a script of PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
from bertd_client import Client
from numpy.typing import NDArray

from bertd_bench.compare import agreement
from bertd_bench.contestants.eager import BenchError, ModelPair, server_process

TEXT = "The first answer is the one that people wait for."
SERVER = "bertd serve"
SCRIPT = "PyTorch script"

# The least that a user of PyTorch writes: one embedding, printed as JSON.
_SCRIPT = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
source, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source)
model = AutoModel.from_pretrained(source).eval()
with torch.inference_mode():
    pooled = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)
print(json.dumps(pooled[0].tolist()), flush=True)
"""


def _server(model: ModelPair, threads: int) -> tuple[int, NDArray[np.float32]]:
    begin = time.perf_counter_ns()
    with server_process(model.bundle, threads) as server:
        server.wait_until_listening()
        with Client(server.address) as client:
            vector = client.embed([TEXT], prompt_name="", timeout=60)[0]
            return time.perf_counter_ns() - begin, vector


def _script(model: ModelPair) -> tuple[int, NDArray[np.float32]]:
    begin = time.perf_counter_ns()
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", _SCRIPT, model.checkpoint, TEXT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        line = process.stdout.readline() if process.stdout is not None else b""
        elapsed = time.perf_counter_ns() - begin
    if not line or process.returncode:
        raise BenchError(f"the PyTorch script ended with {process.returncode}")
    return elapsed, np.array(json.loads(line), np.float32)


def measure(model: ModelPair, threads: int, runs: int) -> dict[str, list[int]]:
    """Nanoseconds of so many starts of each, in turns, after one that fills the file cache.

    Args:
        model: whose vectors are means, of unit length or not.
        threads: of the server; PyTorch takes all that are usable.
        runs: of each.

    Raises:
        BenchError: a start failed, or the answers differ.
    """
    samples: dict[str, list[int]] = {SCRIPT: [], SERVER: []}
    for _ in range(runs + 1):
        script, expected = _script(model)
        server, vector = _server(model, threads)
        check(vector, expected)
        samples[SCRIPT].append(script)
        samples[SERVER].append(server)
    return {name: each[1:] for name, each in samples.items()}


def check(vector: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Refuse to time a wrong answer.

    Raises:
        BenchError: the server's vector does not point where the script's does.
    """
    if not agreement.of_directions(vector[None], expected[None]).difference <= agreement.TOLERANCE:
        raise BenchError(f"the first answer of {SERVER} is not that of the {SCRIPT}")
