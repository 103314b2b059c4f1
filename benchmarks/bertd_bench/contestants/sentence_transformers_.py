"""sentence-transformers with each of its back-ends; it sorts texts by length itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bertd_bench.contestants.peer import AnswerTexts, Peer, Setting, TextArrays


def _options(backend: str, threads: int) -> dict[str, Any]:
    """What a back-end must be told to use so many threads."""
    if backend == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return {"provider": "CPUExecutionProvider", "session_options": options}
    if backend == "openvino":
        return {
            "ov_config": {
                "INFERENCE_NUM_THREADS": str(threads),
                "NUM_STREAMS": "1",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            }
        }
    return {}


def _build(backend: str) -> Callable[[Setting], AnswerTexts]:
    def build(setting: Setting) -> AnswerTexts:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(setting.threads)
        model = SentenceTransformer(
            setting.checkpoint,
            device="cpu",
            backend=backend,  # type: ignore[arg-type,unused-ignore]
            model_kwargs=_options(backend, setting.threads),
        )

        def answer(texts: Sequence[str]) -> TextArrays:
            vectors: TextArrays = model.encode(
                list(texts), normalize_embeddings=True, show_progress_bar=False
            )
            return vectors

        return answer

    return build


PEERS = (
    Peer("sentence-transformers", "fp32", ("sentence_transformers",), _build("torch")),
    Peer(
        "sentence-transformers, ONNX",
        "fp32",
        ("sentence_transformers", "optimum.onnxruntime"),
        _build("onnx"),
    ),
    Peer(
        "sentence-transformers, OpenVINO",
        "fp32",
        ("sentence_transformers", "optimum.intel", "openvino"),
        _build("openvino"),
    ),
)
