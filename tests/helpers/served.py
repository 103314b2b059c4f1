"""Tiny checkpoints of every task, exported, and asked in process as a service would ask them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from bertd.bundle import Task
from bertd_export.bundle import export_model
from bertd_export.checkpoint.tasks import loader
from bertd_server.engine.engine import EngineOptions
from bertd_server.models import startup
from bertd_server.models.model import Model
from bertd_server.models.startup import ModelOptions, StartOptions
from bertd_server.scheduling.scheduler import SchedulerOptions
from bertd_server.tasks.ask import Reply
from helpers.once import once
from helpers.sentences import ALPHABET, long_text
from helpers.tiny import save_tiny
from transformers import AutoTokenizer

T = TypeVar("T")

POSITIONS = 258  # of them RoBERTa's kin reserve two
ENTITIES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
INFERENCE = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
# What a BERT of each task is made with, in the tests that need but one of it.
OF_TASK: dict[Task, dict[str, Any]] = {
    "feature-extraction": {},
    "text-classification": {"num_labels": 4},
    "zero-shot-classification": {"id2label": INFERENCE},
    "text-ranking": {"num_labels": 1},
    "token-classification": {"id2label": ENTITIES, "initializer_range": 0.4},
    "question-answering": {"num_labels": 2},
    "fill-mask": {},
}


@dataclass
class Served:
    """A checkpoint, its bundle, and a model of it on an event loop of its own."""

    source: Path
    bundle: Path
    model: Model
    runner: asyncio.Runner

    def ask(self, question: Coroutine[Any, Any, list[Reply[T]]]) -> list[T]:
        """The values of a task's replies; none may be an error."""
        values = []
        for reply in self.runner.run(question):
            assert not isinstance(reply.outcome, Exception), reply.outcome
            values.append(reply.outcome)
        return values

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' own."""
        return AutoTokenizer.from_pretrained(self.source)

    @cached_property
    def eager(self) -> Any:
        """The PyTorch model with the task's head."""
        return loader(self.model.manifest.task).from_pretrained(self.source).eval()

    def forward(self, ids: Sequence[int], types: Sequence[int]) -> dict[str, np.ndarray]:
        """What PyTorch says of one sequence, by name of output, without the axis of the batch."""
        given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
        if "token_type_ids" in self.tokenizer.model_input_names:
            given["token_type_ids"] = torch.tensor([types])
        with torch.inference_mode():
            outputs = self.eager(**given)
        return {name: value[0].numpy() for name, value in outputs.items()}


def open_model(bundle: Path, options: ModelOptions) -> Model:
    """A bundle as the only model, on the event loop that calls this and waits for it."""
    return Model(startup.load(bundle, options), options)


def export_tiny(
    factory: pytest.TempPathFactory, family: str, task: Task, **changes: Any
) -> tuple[Path, Path]:
    """A checkpoint and its bundle, made once per run."""
    changes = {"max_position_embeddings": POSITIONS, **changes}
    key = hashlib.sha256(json.dumps([family, task, changes]).encode()).hexdigest()[:16]

    def make(folder: Path) -> None:
        save_tiny(folder / "source", family, task, alphabet=ALPHABET, **changes)
        export_model(str(folder / "source"), folder / "bundle", name=task, task=task)

    folder = once(factory, f"{task}-{key}", make)
    return folder / "source", folder / "bundle"


@contextmanager
def serving(
    factory: pytest.TempPathFactory, family: str, task: Task, **changes: Any
) -> Iterator[Served]:
    """Load the bundle of a tiny checkpoint."""
    source, bundle = export_tiny(factory, family, task, **changes)
    options = ModelOptions(
        engine=EngineOptions(threads=1, lanes=1),
        scheduling=SchedulerOptions(),
        starting=StartOptions(warmup_seconds=0, calibration_seconds=0.05),
    )
    with asyncio.Runner() as runner:

        async def load() -> Model:
            return open_model(bundle, options)

        model = runner.run(load())
        yield Served(source, bundle, model, runner)
        runner.run(model.drain())


def long_enough(served: Served, tokens: int) -> tuple[str, Any]:
    """A text of about so many tokens, and transformers' encoding of it."""
    words = tokens // 2
    while True:
        text = long_text(words)
        encoding = served.tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        if len(encoding["input_ids"]) >= tokens:
            return text, encoding
        words += tokens // 8
