"""A running server for each task, of a tiny BERT."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2_grpc
from helpers.running import RunningServer, quick_settings
from helpers.served import OF_TASK, export_tiny
from tokenizers import Tokenizer


class Servers:
    """A server for each task, started when it is first asked."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._running: dict[Task, tuple[RunningServer, grpc.Channel]] = {}

    def channel(self, task: Task) -> grpc.Channel:
        if task not in self._running:
            _, bundle = export_tiny(self._factory, "bert", task, **OF_TASK[task])
            running = RunningServer(bundle, quick_settings(max_texts_per_call=32))
            self._running[task] = running, grpc.insecure_channel(running.address)
        return self._running[task][1]

    def stub(self, task: Task) -> Any:
        return inference_pb2_grpc.InferenceServiceStub(self.channel(task))

    def tokenizer(self, task: Task) -> Tokenizer:
        self.channel(task)
        return self._running[task][0].server.model.tokenizer

    def stop(self) -> None:
        for running, channel in self._running.values():
            channel.close()
            running.stop()
