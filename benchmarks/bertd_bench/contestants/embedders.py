"""Libraries that only embed: sentence-transformers with each back-end, CTranslate2, Infinity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertd_bench.contestants import openvino_
from bertd_bench.contestants.padded import pooled, tokenizer_of
from bertd_bench.contestants.peer import (
    AnswerTexts,
    Peer,
    PeerUnavailable,
    Setting,
    TextArrays,
)


def _backend_options(backend: str, threads: int) -> dict[str, Any]:
    """What a back-end must be told to use so many threads."""
    if backend == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return {"provider": "CPUExecutionProvider", "session_options": options}
    if backend == "openvino":
        return {"ov_config": openvino_.settings(threads, "f32")}
    return {}


def _sentences(backend: str) -> Callable[[Setting], AnswerTexts]:
    """It sorts texts by length itself."""

    def build(setting: Setting) -> AnswerTexts:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(setting.threads)
        model = SentenceTransformer(
            setting.checkpoint,
            device="cpu",
            backend=backend,  # type: ignore[arg-type,unused-ignore]
            model_kwargs=_backend_options(backend, setting.threads),
        )

        def answer(texts: Sequence[str]) -> TextArrays:
            vectors: TextArrays = model.encode(
                list(texts), normalize_embeddings=True, show_progress_bar=False
            )
            return vectors

        return answer

    return build


def _ctranslate2(compute_type: str) -> Callable[[Setting], AnswerTexts]:
    """The encoder, fp32 or int8."""

    def build(setting: Setting) -> AnswerTexts:
        import ctranslate2

        folder = setting.folder("ctranslate2") / compute_type
        if not folder.exists():
            converter: Any = ctranslate2.converters.TransformersConverter(setting.checkpoint)
            converter.convert(str(folder), quantization=compute_type)
        encoder = ctranslate2.Encoder(
            str(folder),
            device="cpu",
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=setting.threads,
        )
        tokenizer = tokenizer_of(setting)
        tokenizer.no_padding()

        def answer(texts: Sequence[str]) -> TextArrays:
            ids = [each.ids for each in tokenizer.encode_batch_fast(list(texts))]
            hidden = np.asarray(encoder.forward_batch(ids).last_hidden_state)
            lengths = np.array([len(each) for each in ids])
            mask = np.arange(hidden.shape[1]) < lengths[:, None]
            return pooled(hidden, mask.astype(np.int64))

        return answer

    return build


def _infinity(setting: Setting) -> AnswerTexts:
    """Its engine in process, without its HTTP server: its own batching and threads."""
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


def _fastembed(setting: Setting) -> AnswerTexts:
    """As its users add a model of their own; the graph is the one that optimum exports."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    graph = setting.folder(f"optimum-{setting.task}") / "model.onnx"
    if not graph.exists():
        raise PeerUnavailable("ONNX Runtime, which exports its graph, is not in this run")
    config = json.loads((Path(setting.checkpoint) / "config.json").read_text(encoding="utf-8"))
    TextEmbedding.add_custom_model(
        model="here",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="here"),
        dim=config["hidden_size"],
        model_file=graph.name,
    )
    model: Any = TextEmbedding(
        "here", threads=setting.threads, specific_model_path=str(graph.parent)
    )
    return lambda texts: list(model.embed(list(texts), batch_size=len(texts)))


_CONVERTED = ("ctranslate2", "tokenizers", "torch", "transformers")
_SENTENCES = "sentence_transformers"
_OPENVINO = (_SENTENCES, "optimum.intel", "openvino")

PEERS = (
    Peer("sentence-transformers", "fp32", (_SENTENCES,), _sentences("torch")),
    Peer(
        "sentence-transformers, ONNX",
        "fp32",
        (_SENTENCES, "optimum.onnxruntime"),
        _sentences("onnx"),
    ),
    Peer("sentence-transformers, OpenVINO", "fp32", _OPENVINO, _sentences("openvino")),
    Peer("CTranslate2", "fp32", _CONVERTED, _ctranslate2("float32")),
    Peer("CTranslate2 int8", "int8", _CONVERTED, _ctranslate2("int8")),
    Peer("fastembed", "fp32", ("fastembed",), _fastembed),
    Peer("Infinity", "fp32", ("infinity_emb", "torch"), _infinity),
)
