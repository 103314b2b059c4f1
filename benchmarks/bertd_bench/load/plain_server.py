"""A plain gRPC server: ONNX Runtime on the graph as PyTorch exports it, a call for each text.

::

    EmbedRequest ──tokeniser, session.run, mean──> EmbedResponse      on a pool of T threads

What one writes in an afternoon: `grpc.aio`, no batches, no queue but the pool's, one thread a run.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import torch
from bertd.v1 import inference_pb2
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from bertd_bench.contestants.padded import Int64, pooled

_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_EXAMPLE = (2, 8)  # texts and tokens of the batch that is traced


class _Hidden(torch.nn.Module):
    """The model as a function of three tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        output = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def exported(checkpoint: Path, folder: Path) -> Path:
    """The graph as `torch.onnx.export` makes it, batch and length dynamic; made once."""
    path = folder / "plain.onnx"
    if not path.exists():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        model = _Hidden(AutoModel.from_pretrained(checkpoint)).eval()
        dynamic = dict.fromkeys(range(2), torch.export.Dim.DYNAMIC)
        torch.onnx.export(
            model,
            # Three tensors: one that is given thrice is traced as one input.
            tuple(torch.ones(_EXAMPLE, dtype=torch.int64) for _ in _NAMES),
            path,
            input_names=list(_NAMES),
            dynamic_shapes=(dynamic,) * len(_NAMES),
            dynamo=True,
            verbose=False,
        )
    return path


class Plain:
    """One text to one vector."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(exported(checkpoint, folder)), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer: Any = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._tokenizer.no_padding()

    def __call__(self, request: inference_pb2.EmbedRequest) -> inference_pb2.EmbedResponse:
        """Answer a call, one text after the other."""
        answer = inference_pb2.EmbedResponse()
        for text in request.texts:
            encoding = self._tokenizer.encode(text)
            ids: Int64 = np.array([encoding.ids], np.int64)
            mask = np.ones_like(ids)
            types: Int64 = np.array([encoding.type_ids], np.int64)
            [hidden] = self._session.run(None, dict(zip(_NAMES, (ids, mask, types), strict=True)))
            answer.results.add(embedding=pooled(hidden, mask).astype("<f4").tobytes())
        return answer


async def start(
    checkpoint: Path, folder: Path, threads: int, address: str
) -> tuple[grpc.aio.Server, int]:
    """Listen; gives the server and its port."""
    plain, pool = Plain(checkpoint, folder), ThreadPoolExecutor(threads)
    loop = asyncio.get_running_loop()

    async def embed(request: inference_pb2.EmbedRequest, _: Any) -> inference_pb2.EmbedResponse:
        return await loop.run_in_executor(pool, plain, request)

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(
        embed,  # type: ignore[arg-type,unused-ignore]
        request_deserializer=inference_pb2.EmbedRequest.FromString,
        response_serializer=inference_pb2.EmbedResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("bertd.v1.InferenceService", {"Embed": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(address)
    await server.start()
    return server, port
