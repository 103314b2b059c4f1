"""Infinity's engine in process, without its HTTP server: its own batching and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertd_bench.contestants.peer import AnswerTexts, Peer, Setting, TextArrays


def _build(setting: Setting) -> AnswerTexts:
    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(setting.threads)
    engine: Any = AsyncEmbeddingEngine.from_args(
        EngineArgs(
            model_name_or_path=setting.checkpoint,
            engine="torch",
            device="cpu",
            dtype="float32",
            bettertransformer=False,
            model_warmup=False,
            vector_disk_cache_path="",  # none
        )
    )
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def answer(texts: Sequence[str]) -> TextArrays:
        vectors, _ = loop.run_until_complete(engine.embed(sentences=list(texts)))
        rows = np.asarray(vectors, np.float32)
        scaled: TextArrays = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return scaled

    return answer


PEERS = (Peer("Infinity", "fp32", ("infinity_emb", "torch"), _build),)
