"""A server of each task, and Triton's client that asks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2_grpc
from bertd.v1 import inference_pb2 as v1
from bertd.v1 import inference_pb2_grpc
from bertd_export.bundle import export_model
from helpers.once import once
from helpers.running import RunningServer, quick_settings
from helpers.tiny import save_tiny
from tritonclient.utils import np_to_triton_dtype

TASKS: tuple[Task, ...] = get_args(Task)
HEADS: dict[str, dict[str, Any]] = {
    "text-classification": {"id2label": {0: "bad", 1: "so so", 2: "good"}},
    "zero-shot-classification": {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}},
    "text-ranking": {"num_labels": 1},
    "token-classification": {"id2label": {0: "O", 1: "B-PET", 2: "I-PET", 3: "B-SEA"}},
}
TEXTS = ["the cat sat on a mat", "안녕 the dog saw rain", "a cat and a dog in the sea. rain!"]
MASKED = ["the [MASK] sat on a mat", "[MASK] saw the [MASK]", "안녕 [MASK] rain"]
QUESTIONS = ["the cat", "dog saw", "rain"]
LABELS = ["rain", "the sea", "cat"]
MOST = 8  # inputs of a call
LONG = "the cat sat " * 40
SEPARATOR = 2  # of the tiny WordPiece tokenizer


class Served:
    """A server of one task, and the clients that ask it."""

    def __init__(self, task: Task, factory: pytest.TempPathFactory) -> None:
        settings = quick_settings(max_texts_per_call=MOST, management_address="127.0.0.1:0")
        self.server = RunningServer(bundle_of(task, factory), settings)
        self.address = self.server.address
        self.triton = triton.InferenceServerClient(self.address)
        managed = f"127.0.0.1:{self.server.server.management_port}"
        self.managing = triton.InferenceServerClient(managed)
        self.channel = grpc.insecure_channel(self.address)
        self.v1 = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.v2 = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def stop(self) -> None:
        self.triton.close()
        self.managing.close()
        self.channel.close()
        self.server.stop()

    def infer(self, tensors: dict[str, Any], *outputs: str, **options: Any) -> Callable[[str], Any]:
        """Ask Triton's client; the answer's outputs by name."""
        wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
        result = self.triton.infer("tiny", inputs(tensors), outputs=wanted, **options)
        return lambda name: strings(result.as_numpy(name))

    def tokens(self, *texts: str, pairs: list[str] | None = None) -> tuple[np.ndarray, ...]:
        """Ids, types and mask of texts, padded on the right to the longest."""
        given = [
            v1.TextInput(text=text, **({"text_pair": pairs[n]} if pairs else {}))
            for n, text in enumerate(texts)
        ]
        results = self.v1.Tokenize(v1.TokenizeRequest(inputs=given)).results
        rows = [[token.id for token in result.tokens] for result in results]
        longest = max(map(len, rows))
        ids, types, mask = np.zeros((3, len(rows), longest), np.int64)
        for row, found in enumerate(rows):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
            if pairs:
                types[row, found.index(SEPARATOR) + 1 : len(found)] = 1
        return ids, types, mask


def bundle_of(task: Task, factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT for a task, which reads 64 tokens."""
    head = {"max_position_embeddings": 64, **HEADS.get(task, {})}

    def make(folder: Path) -> None:
        source = save_tiny(folder / "source", "bert", task, **head)
        export_model(str(source), folder / "bundle", name="tiny", task=task)

    return once(factory, f"v2-{task}", make) / "bundle"


def inputs(tensors: dict[str, Any]) -> list[Any]:
    """Triton's tensors of arrays, or of lists of texts, `[n, 1]`."""
    made = []
    for name, given in tensors.items():
        text = isinstance(given, list)
        array = np.array([[one.encode()] for one in given], object) if text else given
        kind = np_to_triton_dtype(array.dtype)
        tensor = triton.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def strings(array: Any) -> Any:
    """Bytes as text, numbers as they are."""
    if array is None or array.dtype != object:
        return array
    return (
        [one.decode() for one in array.ravel()]
        if array.shape[1] == 1
        else np.char.decode(array.astype(bytes)).tolist()
    )
