"""All contestants, by name; bertd's first."""

from __future__ import annotations

from bertd_bench.contestants import embedders, onnx_runtime, openvino_, ours, torch_eager
from bertd_bench.contestants.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for module in (ours, torch_eager, onnx_runtime, embedders, openvino_)
    for peer in module.PEERS
}
