"""All contestants, by name; bertd's first."""

from __future__ import annotations

from bertd_bench.contestants import (
    ctranslate2_,
    infinity,
    onnx_runtime,
    openvino_,
    ours,
    sentence_transformers_,
    torch_eager,
)
from bertd_bench.contestants.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for module in (
        ours,
        torch_eager,
        sentence_transformers_,
        onnx_runtime,
        openvino_,
        ctranslate2_,
        infinity,
    )
    for peer in module.PEERS
}
