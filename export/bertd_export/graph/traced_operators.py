"""What a stock model calls while it is traced: attention and reductions, one operator each.

::

    transformers' attention interface ──traced_attention──> PackedAttention, PackedLocalAttention
    a replaced forward ──traced_biased_attention──────────> PackedBiasedAttention
    pooling, heads ──first_rows, mean_rows, …─────────────> FirstRows, PackedMean, PackedMax, …

Importing this module registers the attention with transformers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from bertd_export.errors import ExportError
from bertd_export.graph.operators import (
    DOMAIN,
    FIRST_ROWS,
    PACKED_ATTENTION,
    PACKED_BIASED_ATTENTION,
    PACKED_LOCAL_ATTENTION,
    PACKED_MAX,
    PACKED_MEAN,
    PACKED_WEIGHTED_MEAN,
)
from bertd_export.graph.position_bias import BiasedLayer

IMPLEMENTATION = "bertd_packed"

_HARMLESS = frozenset(
    {
        "is_causal",
        "sliding_window",  # its meaning is checked by itself
        "deterministic",
        "position_ids",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_cache",
    }
)


@dataclass
class TracedBatch:
    """The batch that is being traced.

    Attributes:
        cu_seqlens: int64 `[sequences + 1]`, where each sequence starts, and the end.
        calls: how often attention was called on it.
    """

    cu_seqlens: torch.Tensor
    calls: int = 0


_current: ContextVar[TracedBatch] = ContextVar("bertd_traced_batch")


@contextmanager
def traced_on(cu_seqlens: torch.Tensor) -> Iterator[TracedBatch]:
    """Within the context, attention is that of a batch with these boundaries."""
    batch = TracedBatch(cu_seqlens)
    token = _current.set(batch)
    try:
        yield batch
    finally:
        _current.reset(token)


def _symbolic(
    name: str, inputs: tuple[torch.Tensor, ...], attributes: dict[str, Any], shape: tuple[Any, ...]
) -> torch.Tensor:
    result: torch.Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", inputs, attributes, dtype=inputs[0].dtype, shape=shape, version=1
    )
    return result


def _window(module: Any, sliding_window: int | None) -> int | None:
    """How far a token sees to either side; None for as far as its sequence goes.

    Encoders pass `config.sliding_window + 1`, and mean that token i sees j if
    `|i - j| <= config.sliding_window`.
    """
    if sliding_window is None:
        return None
    reach = getattr(getattr(module, "config", None), "sliding_window", None)
    if reach is None or sliding_window != reach + 1:
        raise ExportError(
            f"{type(module).__name__} passes sliding_window={sliding_window} with a meaning that "
            f"is not known"
        )
    return int(reach)


def traced_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 - zero in eval mode
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as one operator in the trace; registered with transformers.

    Raises:
        ExportError: the layer asks for attention that the operator does not do.
    """
    if attention_mask is not None:
        raise ExportError("a mask or an attention bias reaches attention; not supported")
    if getattr(module, "is_causal", False) or options.get("is_causal"):
        raise ExportError("attention is causal: only encoders are supported")
    if getattr(module, "is_cross_attention", False):
        raise ExportError("the model has cross attention; not supported")
    odd = sorted(k for k, v in options.items() if v is not None and k not in _HARMLESS)
    if odd:
        raise ExportError(f"attention is called with {', '.join(odd)}; not supported")
    batch = _current.get()
    batch.calls += 1
    _, heads, tokens, width = query.shape
    if key.shape[1] != heads:
        repeats = heads // key.shape[1]
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    rows = tuple(x.transpose(1, 2).reshape(tokens, -1) for x in (query, key, value))
    scale = float(scaling) if scaling is not None else float(width) ** -0.5
    attributes: dict[str, Any] = {"num_heads": int(heads), "scale": scale}
    window = _window(module, options.get("sliding_window"))
    if window is not None:
        attributes["window"] = window
    out = _symbolic(
        PACKED_ATTENTION if window is None else PACKED_LOCAL_ATTENTION,
        (*rows, batch.cu_seqlens),
        attributes,
        (tokens, heads * value.shape[-1]),
    )
    return out.reshape(1, tokens, heads, value.shape[-1]), None


def traced_biased_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: BiasedLayer
) -> torch.Tensor:
    """Attention with a position bias as one operator, on rows `[tokens, width]`."""
    batch = _current.get()
    batch.calls += 1
    return _symbolic(
        PACKED_BIASED_ATTENTION,
        (query, key, value, batch.cu_seqlens, *layer.tables),
        {"num_heads": layer.heads, "scale": layer.scale},
        tuple(value.shape),
    )


def _no_mask(*_args: Any, **_options: Any) -> None:
    """Packed sequences have no padding, so there is nothing to mask."""


AttentionInterface.register(IMPLEMENTATION, traced_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)  # type: ignore[arg-type,unused-ignore]


def _by_sequence(operator: str, rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    shape = (cu_seqlens.shape[0] - 1, rows.shape[1])
    return _symbolic(operator, (rows, cu_seqlens), {}, shape)


def first_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The first row of each sequence, `[sequences, width]` of `[tokens, width]`."""
    return _by_sequence(FIRST_ROWS, rows, cu_seqlens)


def mean_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The mean of each sequence's rows, `[sequences, width]` of `[tokens, width]`."""
    return _by_sequence(PACKED_MEAN, rows, cu_seqlens)


def max_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The largest of each sequence in every column, `[sequences, width]` of `[tokens, width]`."""
    return _by_sequence(PACKED_MAX, rows, cu_seqlens)


def weighted_mean_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The mean of each sequence's rows, weighted by their places from 1 on.

    `[sequences, width]` of `[tokens, width]`.
    """
    return _by_sequence(PACKED_WEIGHTED_MEAN, rows, cu_seqlens)
