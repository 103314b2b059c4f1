"""Plain ONNX Runtime: the graph that optimum exports, padded; fused; and its dynamic int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertd_bench.contestants.padded import Float32, ForwardPass, Int64, answering
from bertd_bench.contestants.peer import EMBED, TASKS, AnswerTexts, Peer, Setting


def exported(setting: Setting) -> Path:
    """The graph as optimum exports it for the task, with dynamic batch and length."""
    folder = setting.folder(f"optimum-{setting.task}")
    if not (folder / "model.onnx").exists():
        from optimum.exporters.onnx import main_export

        # As a model of transformers: what reads the graph looks for `last_hidden_state`.
        main_export(
            setting.checkpoint,
            output=folder,
            task=setting.task,
            library_name="transformers",
            do_validation=False,
        )
    return folder / "model.onnx"


def fused(setting: Setting) -> Path:
    """The same after ONNX Runtime's optimiser for transformers: attention, GELU, LayerNorm."""
    path = setting.folder(f"fused-{setting.task}") / "model.onnx"
    if not path.exists():
        from onnxruntime.transformers import optimizer
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(setting.checkpoint)
        model = optimizer.optimize_model(
            str(exported(setting)),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=1,
        )
        model.save_model_to_file(str(path), use_external_data_format=True)
    return path


def quantized(setting: Setting) -> Path:
    """The exported graph with matrix products in int8, their inputs quantised as they come."""
    path = setting.folder(f"dynamic-int8-{setting.task}") / "model.onnx"
    if not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(exported(setting)),
            str(path),
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    return path


def runner(path: Path, threads: int) -> ForwardPass:
    """A session of its own threads, all of ONNX Runtime's optimisations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    names = {each.name for each in session.get_inputs()}
    output = [session.get_outputs()[0].name]

    def run(ids: Int64, mask: Int64, types: Int64) -> Float32:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        values: Float32 = session.run(output, {k: v for k, v in inputs.items() if k in names})[0]
        return values

    return run


def _build(graph: Callable[[Setting], Path]) -> Callable[[Setting], AnswerTexts]:
    return lambda setting: answering(setting, runner(graph(setting), setting.threads))


_NEEDS = ("onnxruntime", "optimum.onnxruntime", "tokenizers", "transformers")

PEERS = (
    Peer("ONNX Runtime", "fp32", _NEEDS, _build(exported), TASKS),
    Peer("ONNX Runtime, fused", "fp32", _NEEDS, _build(fused), (EMBED,)),
    Peer("ONNX Runtime int8", "int8", _NEEDS, _build(quantized), TASKS),
)
