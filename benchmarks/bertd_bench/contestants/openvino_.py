"""OpenVINO on the graph that it converts itself: fp32, bf16 where the CPU has it, and int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertd_bench.contestants import padded
from bertd_bench.contestants.padded import Float32, ForwardPass, Int64
from bertd_bench.contestants.peer import TASKS, AnswerTexts, Peer, PeerUnavailable, Setting
from bertd_bench.contestants.torch_eager import network_of

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _converted(setting: Setting) -> Path:
    """The model in OpenVINO's format, batch and length dynamic."""
    path = setting.folder(f"openvino-{setting.task}") / "model.xml"
    if not path.exists():
        import openvino
        import torch

        network = network_of(setting, "sdpa", "float32")
        example = {name: torch.ones((2, 8), dtype=torch.int64) for name in _INPUTS}
        shapes = dict.fromkeys(_INPUTS, openvino.PartialShape([-1, -1]))
        with torch.no_grad():
            graph = openvino.convert_model(
                network, example_input=example, input=list(shapes.items())
            )
        openvino.save_model(graph, path, compress_to_fp16=False)
    return path


def settings(threads: int, precision: str) -> dict[str, str]:
    """What makes OpenVINO answer one call after the other on so many threads."""
    return {
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }


def _runner(graph: Any, threads: int, precision: str) -> ForwardPass:
    import openvino

    compiled = openvino.compile_model(graph, "CPU", settings(threads, precision))
    request = compiled.create_infer_request()
    output = compiled.outputs[0]
    names = [each.get_any_name() for each in compiled.inputs]

    def run(ids: Int64, mask: Int64, types: Int64) -> Float32:
        inputs = dict(zip(_INPUTS, (ids, mask, types), strict=True))
        given = {name: inputs[name] for name in names if name in inputs}
        values: Float32 = request.infer(given, share_inputs=True)[output]
        return values

    return run


def _plain(precision: str) -> Callable[[Setting], AnswerTexts]:
    def build(setting: Setting) -> AnswerTexts:
        import openvino

        if precision == "bf16":
            said = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if "BF16" not in said:
                raise PeerUnavailable("OpenVINO has no bf16 on this CPU")
        graph = openvino.Core().read_model(_converted(setting))
        return padded.answering(setting, _runner(graph, setting.threads, precision))

    return build


def _quantized(setting: Setting) -> AnswerTexts:
    """NNCF's post-training quantisation for transformers, calibrated on the texts given."""
    import nncf
    import openvino

    path = setting.folder(f"openvino-int8-{setting.task}") / "model.xml"
    if not path.exists():
        tokenizer = padded.tokenizer_of(setting)

        def encoded(text: str) -> dict[str, Int64]:
            each = tokenizer.encode(text)
            rows = (each.ids, each.attention_mask, each.type_ids)
            return {
                name: np.array([row], np.int64) for name, row in zip(_INPUTS, rows, strict=True)
            }

        graph = nncf.quantize(
            openvino.Core().read_model(_converted(setting)),
            nncf.Dataset(list(setting.calibration), encoded),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(setting.calibration),
        )
        openvino.save_model(graph, path)
    graph = openvino.Core().read_model(path)
    return padded.answering(setting, _runner(graph, setting.threads, "f32"))


def _compressed(setting: Setting) -> AnswerTexts:
    """Weights in int8; OpenVINO quantises activations as they come where that is faster."""
    import nncf
    import openvino

    graph = openvino.Core().read_model(_converted(setting))
    graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    return padded.answering(setting, _runner(graph, setting.threads, "f32"))


_NEEDS = ("openvino", "tokenizers", "torch", "transformers")

PEERS = (
    Peer("OpenVINO", "fp32", _NEEDS, _plain("f32"), TASKS),
    Peer("OpenVINO bf16", "bf16", _NEEDS, _plain("bf16"), TASKS),
    Peer("OpenVINO int8", "int8", (*_NEEDS, "nncf"), _quantized, TASKS),
    Peer("OpenVINO int8 weights", "int8", (*_NEEDS, "nncf"), _compressed, TASKS),
)
