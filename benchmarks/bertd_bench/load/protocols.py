"""How each kind of server is asked for one text's vector, and how its answer is read.

::

    text ──request──> bytes ──gRPC | HTTP──> bytes ──vector──> float32 [dimensions]
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from bertd.oip import grpc_service_pb2 as oip
from bertd.v1 import inference_pb2
from numpy.typing import NDArray

MODEL = "model"  # as servers are told to call it


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol.

    Attributes:
        grpc: whether calls are gRPC's, or HTTP's with JSON.
        target: the method, or the path.
        request: of one text, as bytes on the wire.
        vector: of an answer's bytes.
    """

    grpc: bool
    target: str
    request: Callable[[str], bytes]
    vector: Callable[[bytes], NDArray[np.float32]]


def _embed(text: str) -> bytes:
    return inference_pb2.EmbedRequest(texts=[text], prompt_name="").SerializeToString()


def _embedding(answer: bytes) -> NDArray[np.float32]:
    [result] = inference_pb2.EmbedResponse.FromString(answer).results
    return np.frombuffer(result.embedding, "<f4").astype(np.float32)


def _infer(text: str) -> bytes:
    said = oip.ModelInferRequest(model_name=MODEL)
    said.inputs.add(name="text", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(
        text.encode()
    )
    return said.SerializeToString()


def _inferred(answer: bytes) -> NDArray[np.float32]:
    said = oip.ModelInferResponse.FromString(answer)
    if said.raw_output_contents:
        return np.frombuffer(said.raw_output_contents[0], "<f4").astype(np.float32)
    return np.array(said.outputs[0].contents.fp32_contents, np.float32)


def _openai(text: str) -> bytes:
    # base64 is what OpenAI's own client asks for, and the cheaper to write.
    return json.dumps({"model": MODEL, "input": text, "encoding_format": "base64"}).encode()


def _openai_vector(answer: bytes) -> NDArray[np.float32]:
    found: Any = json.loads(answer)["data"][0]["embedding"]
    if isinstance(found, str):
        return np.frombuffer(base64.b64decode(found), "<f4").astype(np.float32)
    return np.array(found, np.float32)


def _plain(text: str) -> bytes:
    return json.dumps({"input": text}).encode()


def _plain_vector(answer: bytes) -> NDArray[np.float32]:
    return np.array(json.loads(answer)["embedding"], np.float32)


BERTD = Protocol(True, "/bertd.v1.InferenceService/Embed", _embed, _embedding)
V2 = Protocol(True, "/inference.GRPCInferenceService/ModelInfer", _infer, _inferred)


def openai(path: str) -> Protocol:
    """OpenAI's embeddings under a path."""
    return Protocol(False, path, _openai, _openai_vector)


def plain(path: str) -> Protocol:
    """JSON of one's own: `{"input": text}` to `{"embedding": [...]}`."""
    return Protocol(False, path, _plain, _plain_vector)
