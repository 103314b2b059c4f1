"""From a checkpoint to the packed ONNX model.

::

    PackedModel, example batch ──torch.onnx.export──> traced graph ──rewrites──> with functions
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import onnx
import onnx_ir
import torch
from bertd.bundle import (
    CU_SEQLENS,
    INPUT_IDS,
    MASK_POSITIONS,
    POOLED_SEQLENS,
    POOLED_TOKENS,
    POSITION_IDS,
    TOKEN_TYPE_IDS,
)
from bertd.bundle.prompts import pooled

from bertd_export.checkpoint.families import check_attention_calls, supported
from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.graph.attention import packed_attention, packed_first_attention, take_runs
from bertd_export.graph.biased_attention import biased_attention_function, trace_bias
from bertd_export.graph.first_rows import TOKENS, resolve_first_rows
from bertd_export.graph.local_attention import local_attention
from bertd_export.graph.operators import (
    OPSET,
    PACKED_ATTENTION,
    PACKED_BIASED_ATTENTION,
    PACKED_FIRST_ATTENTION,
    PACKED_LOCAL_ATTENTION,
    add_functions,
)
from bertd_export.graph.packed_model import PackedEmbedder, PackedHead, PackedModel
from bertd_export.graph.rewrite import (
    drop_metadata,
    drop_unused_inputs,
    fold_transposes,
    merge_qkv,
    name_outputs,
    sum_residuals,
)
from bertd_export.graph.rotary import fuse_rotary
from bertd_export.graph.traced_operators import IMPLEMENTATION

_LENGTHS = (8, 12)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and the log lines of the libraries away from the user."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> ExportError | None:
    """Our own refusal, from under the exporter's errors."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, ExportError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def trace(checkpoint: Checkpoint, *, first_rows_early: bool = True) -> onnx.ModelProto:
    """Trace the model in packed form.

    Args:
        checkpoint: the model and its task.
        first_rows_early: where a head reads first rows alone, compute the last layer for them
            alone; False is for measuring what that saves.

    Raises:
        ExportError: the model does not trace, or attention is not called once per layer.
    """
    plain = checkpoint.task == "feature-extraction"
    packed: PackedModel
    with quiet():
        packed = PackedEmbedder(checkpoint) if plain else PackedHead(checkpoint)
    model = checkpoint.model
    before = model.config._attn_implementation  # noqa: SLF001 - transformers has no public name
    try:
        with quiet(), torch.no_grad():
            if packed.biased is None:
                model.set_attn_implementation(IMPLEMENTATION)
            program = _exported(packed, checkpoint)
            bias = None if packed.biased is None else trace_bias(packed.biased)
    except Exception as error:
        refusal = _cause(error)
        if refusal is not None:
            raise ExportError(f"{refusal.message}; {supported()}") from None
        raise ExportError(
            f"{type(model).__name__} cannot be traced in packed form: {error}"
        ) from error
    finally:
        model.config._attn_implementation = before  # noqa: SLF001 - as above
    if program is None:
        raise ExportError(f"{type(model).__name__}: torch.onnx.export returned nothing")
    resolve_first_rows(program.model, early=first_rows_early)
    return _rewritten(onnx_ir.to_proto(program.model), list(checkpoint.outputs), bias)


def _exported(packed: PackedModel, checkpoint: Checkpoint) -> torch.onnx.ONNXProgram | None:
    """The trace of a batch of two sequences, after a pass that counts the attention calls."""
    config = checkpoint.model.config
    positions = torch.cat([torch.arange(n) + checkpoint.position_offset for n in _LENGTHS])
    ids = torch.arange(len(positions)) % int(config.vocab_size)
    boundaries = torch.tensor([0, _LENGTHS[0], sum(_LENGTHS)])
    names = [INPUT_IDS, TOKEN_TYPE_IDS, POSITION_IDS, CU_SEQLENS]
    arguments = [ids, torch.zeros_like(ids), positions, boundaries]
    axes = [torch.export.Dim(name) for name in (TOKENS, TOKENS, TOKENS, "boundaries")]
    if checkpoint.task == "feature-extraction" and not checkpoint.include_prompt:
        names += [POOLED_TOKENS, POOLED_SEQLENS]
        tokens, bounds = pooled(boundaries.numpy(), [2, 3])
        arguments += [torch.from_numpy(tokens), torch.from_numpy(bounds)]
        axes += [torch.export.Dim("pooled"), axes[-1]]
    if checkpoint.task == "fill-mask":
        names.append(MASK_POSITIONS)
        arguments.append(torch.tensor([1, 4, 5, 13]))
        axes.append(torch.export.Dim("masks"))
    packed(*arguments)
    check_attention_calls(config, packed.calls)
    return torch.onnx.export(
        packed,
        tuple(arguments),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=tuple({0: axis} for axis in axes),
        input_names=names,
        optimize=True,
        verbose=False,
    )


def _rewritten(
    graph: onnx.ModelProto, outputs: list[str], bias: onnx.GraphProto | None
) -> onnx.ModelProto:
    """The traced graph in its final form, with the functions that it calls."""
    drop_unused_inputs(graph)
    fold_transposes(graph)
    fuse_rotary(graph)
    merged = merge_qkv(graph)
    sum_residuals(graph)
    name_outputs(graph, outputs)
    take_runs(graph)
    attention: dict[str, Callable[[], onnx.FunctionProto]] = {
        PACKED_ATTENTION: partial(packed_attention, merged=merged),
        PACKED_FIRST_ATTENTION: packed_first_attention,
        PACKED_LOCAL_ATTENTION: local_attention,
    }
    if bias is not None:
        attention[PACKED_BIASED_ATTENTION] = partial(biased_attention_function, bias, merged=merged)
    add_functions(graph, attention)
    drop_metadata(graph)
    return graph
