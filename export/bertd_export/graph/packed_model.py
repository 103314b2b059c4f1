"""The stock PyTorch model in packed form: one row of tokens, and where each sequence starts."""

from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from bertd.bundle import POOLER_OUTPUT
from transformers import AttentionInterface, AttentionMaskInterface

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.graph.hidden_state import Reads, hidden_source, probe, replaced_rows
from bertd_export.graph.operators import (
    DOMAIN,
    FIRST_ROWS,
    PACKED_ATTENTION,
    PACKED_BIASED_ATTENTION,
    PACKED_LOCAL_ATTENTION,
    PACKED_MAX,
    PACKED_MEAN,
)
from bertd_export.graph.position_bias import BiasedLayer, biased_attention

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
class _Trace:
    cu_seqlens: torch.Tensor
    calls: int = 0


_current: ContextVar[_Trace] = ContextVar("bertd_trace")


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


def packed_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
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
    trace = _current.get()
    trace.calls += 1
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
        (*rows, trace.cu_seqlens),
        attributes,
        (tokens, heads * value.shape[-1]),
    )
    return out.reshape(1, tokens, heads, value.shape[-1]), None


def _biased(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: BiasedLayer
) -> torch.Tensor:
    """Attention with a position bias as one operator, on rows `[tokens, width]`."""
    trace = _current.get()
    trace.calls += 1
    return _symbolic(
        PACKED_BIASED_ATTENTION,
        (query, key, value, trace.cu_seqlens, *layer.tables),
        {"num_heads": layer.heads, "scale": layer.scale},
        tuple(value.shape),
    )


def _no_mask(*_args: Any, **_options: Any) -> None:
    """Packed sequences have no padding, so there is nothing to mask."""


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)  # type: ignore[arg-type,unused-ignore]


def _first_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    shape = (cu_seqlens.shape[0] - 1, rows.shape[1])
    return _symbolic(FIRST_ROWS, (rows, cu_seqlens), {}, shape)


def _mean_rows(rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    shape = (cu_seqlens.shape[0] - 1, rows.shape[1])
    return _symbolic(PACKED_MEAN, (rows, cu_seqlens), {}, shape)


class PackedModel(torch.nn.Module):
    """A stock model on a packed batch; a sub-class says what becomes of the encoder's rows.

    Args:
        checkpoint: the model and its task.

    Attributes:
        calls: attention calls of the last forward pass.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        accepted = checkpoint.inputs
        if "position_ids" not in accepted:
            raise ExportError(
                f"{type(checkpoint.model).__name__} does not take position_ids: "
                f"it cannot read packed batches"
            )
        self.model = checkpoint.model
        self.takes_types = "token_type_ids" in accepted
        self.biased = biased_attention(checkpoint.model.base_model)
        self.calls = 0

    def run(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
    ) -> Any:
        """The stock model's own forward, on one row that holds all sequences."""
        trace = _Trace(cu_seqlens)
        token = _current.set(trace)
        try:
            options = {"token_type_ids": token_type_ids[None]} if self.takes_types else {}
            with nullcontext() if self.biased is None else self.biased.installed(_biased):
                output = self.model(
                    input_ids=input_ids[None], position_ids=position_ids[None], **options
                )
        finally:
            _current.reset(token)
        self.calls = trace.calls
        return output


class PackedEmbedder(PackedModel):
    """The encoder, its pooling and what follows."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.pooling = checkpoint.pooling
        self.after = torch.nn.ModuleList(checkpoint.after_pooling)
        self.source = hidden_source(self.model) if POOLER_OUTPUT in checkpoint.outputs else None

    def _pool(self, mode: str, rows: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        if mode == "cls":
            return rows.index_select(0, cu_seqlens[:-1])
        if mode == "lasttoken":
            return rows.index_select(0, cu_seqlens[1:] - 1)
        if mode == "max":
            shape = (cu_seqlens.shape[0] - 1, rows.shape[1])
            return _symbolic(PACKED_MAX, (rows, cu_seqlens), {}, shape)
        pooled = _mean_rows(rows, cu_seqlens)
        if mode == "mean_sqrt_len_tokens":
            lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).to(rows.dtype)
            pooled = pooled * lengths.sqrt()[:, None]
        return pooled

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The sentence embeddings, the token embeddings and, if trained, the pooler's output."""
        arguments = (input_ids, token_type_ids, position_ids, cu_seqlens)
        extra: tuple[torch.Tensor, ...] = ()
        if self.source is None:
            rows = self.run(*arguments).last_hidden_state[0]
        else:
            kept: list[torch.Tensor] = []

            def first(hidden: torch.Tensor) -> torch.Tensor:
                kept.append(hidden[0])
                return _first_rows(hidden[0], cu_seqlens)[:, None]

            with replaced_rows(self.source, first):
                extra = (self.run(*arguments).pooler_output,)
            rows = kept[0]
        vectors = [self._pool(mode, rows, cu_seqlens) for mode in self.pooling]
        pooled = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)
        for module in self.after:
            pooled = module(pooled)
        return (pooled, rows, *extra)


class PackedHead(PackedModel):
    """The encoder and the task's own head, which is handed only the rows that it reads."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.source = hidden_source(self.model.base_model)
        self.outputs = tuple(checkpoint.outputs)
        kind = checkpoint.outputs[self.outputs[0]]
        self.reads: Reads = probe(self.model, self.source) if kind == "sequences" else kind

    def _select(
        self, rows: torch.Tensor, cu_seqlens: torch.Tensor, masks: torch.Tensor | None
    ) -> torch.Tensor:
        if self.reads == "first":
            return _first_rows(rows, cu_seqlens)[:, None]
        if self.reads == "mean":
            return _mean_rows(rows, cu_seqlens)[:, None]
        if masks is not None:
            return rows.index_select(0, masks)[None]
        return rows[None]

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        mask_positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """The logits: one row per sequence, per token, or per mask position."""

        def select(hidden: torch.Tensor) -> torch.Tensor:
            return self._select(hidden[0], cu_seqlens, mask_positions)

        with replaced_rows(self.source, select):
            output = self.run(input_ids, token_type_ids, position_ids, cu_seqlens)
        per_sequence = self.reads in ("first", "mean")
        return tuple(output[name] if per_sequence else output[name][0] for name in self.outputs)
