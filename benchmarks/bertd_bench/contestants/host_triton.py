"""Triton with its Python backend around ONNX Runtime: `… contestants.host_triton`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bertd_bench.contestants.hosted import WAIT_SECONDS, HostedModel, free_port


def _instance(hosted: HostedModel) -> Callable[..., Any]:
    answer = hosted.model()

    @batch  # type: ignore[untyped-decorator,unused-ignore]
    def infer(text: Any) -> dict[str, Any]:
        rows = answer([each[0].decode() for each in text])
        return {"embedding": np.asarray(rows, np.float32)}

    found: Callable[..., Any] = infer
    return found


def main() -> None:
    """Serve until told to end."""
    hosted = HostedModel.given()
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=hosted.port,
        http_address="127.0.0.1",
        http_port=free_port(),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=[_instance(hosted) for _ in range(hosted.workers)],
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="embedding", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=hosted.batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(1e6 * WAIT_SECONDS)),
            ),
            strict=True,
        )
        triton.serve()


if __name__ == "__main__":
    main()
