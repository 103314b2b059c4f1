"""What servers around one's own code are given: a model that turns texts into vectors.

::

    harness ──BERTD_HOSTED (JSON)──> host_mosec, host_litserve, host_triton, host_mlserver
                                       each worker process: model() ──> texts -> vectors

All of them run the graph that optimum exports on ONNX Runtime, as their users do.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from bertd_bench.contestants.peer import EMBED, AnswerTexts, Setting

VARIABLE = "BERTD_HOSTED"
WAIT_SECONDS = 0.002  # that a batch may wait for more texts


@dataclass(frozen=True, slots=True)
class HostedModel:
    """One server's model.

    Attributes:
        checkpoint: its folder, for the tokenizer.
        graph: the ONNX file.
        threads: of all workers together.
        port: to listen on.
        batch: texts of a batch, at most.
        workers: copies of the model.
    """

    checkpoint: str
    graph: str
    threads: int
    port: int
    batch: int
    workers: int

    @classmethod
    def given(cls) -> HostedModel:
        """What the environment says."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def model(self) -> AnswerTexts:
        """A session of this worker's share of the threads."""
        from bertd_bench.contestants.onnx_runtime import runner
        from bertd_bench.contestants.padded import answering

        threads = max(1, self.threads // self.workers)
        setting = Setting(self.checkpoint, EMBED, threads, scratch="")
        return answering(setting, runner(Path(self.graph), threads))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
