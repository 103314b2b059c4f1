"""Servers of tiny models that clients of tei.v1 ask, and what such a client has heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from bertd import bundle
from bertd_export.bundle import export_model
from helpers.checkpoints import save_checkpoint
from helpers.fresh_tei import Heard
from helpers.once import once
from helpers.running import RunningServer, quick_settings
from transformers import AutoTokenizer

INVALID, FAILED = 3, 9  # gRPC's numbers of INVALID_ARGUMENT and FAILED_PRECONDITION
LONG = " ".join(f"w{number % 95}" for number in range(100))
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "embedder": ("Model", {}),
    "classifier": (
        "ForSequenceClassification",
        {"id2label": {0: "bad", 1: "so-so", 2: "good"}},
    ),
    "ranker": ("ForSequenceClassification", {"num_labels": 1}),
    "filler": ("ForMaskedLM", {}),
}


class Served:
    """A small random model of one task, its checkpoint, and a server of it."""

    def __init__(self, kind: str, factory: pytest.TempPathFactory) -> None:
        head, config = MODELS[kind]

        def make(folder: Path) -> None:
            save_checkpoint(folder / "checkpoint", "Bert", head, **config)
            export_model(str(folder / "checkpoint"), folder / "bundle")

        folder = once(factory, f"tei-{kind}", make)
        self.checkpoint, self.bundle = folder / "checkpoint", folder / "bundle"
        self.model = getattr(transformers, f"Bert{head}").from_pretrained(self.checkpoint).eval()
        self.manifest = bundle.read_manifest(self.bundle)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.checkpoint)
        settings = quick_settings(
            calibration_seconds=0,
            cache_folder=factory.mktemp(kind) / "cache",
            max_texts_per_call=4,
            max_message_bytes=4_096,
        )
        self._running = RunningServer(self.bundle, settings)
        self.address = self._running.address

    def logits(self, *texts: str, cut: str = "right") -> np.ndarray:
        """Of PyTorch, for one text or pair."""
        self.tokenizer.truncation_side = cut
        limit = self.manifest.max_tokens
        inputs = self.tokenizer(*texts, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            found: np.ndarray = self.model(**inputs).logits[0].numpy()
        return found

    def stop(self) -> None:
        self._running.stop()


def good(heard: Heard) -> list[dict[str, Any]]:
    assert (heard.code, heard.details) == (0, "")
    return heard.answers
