"""The stock PyTorch model in packed form: one row of tokens, and where each sequence starts.

::

    ids, types, positions [tokens], cu_seqlens ──PackedModel.run──> the stock forward
      PackedEmbedder   its last hidden state, pooled by sequence, and the pooler's output
      PackedHead       its own head on the rows that the head reads
"""

from contextlib import nullcontext
from typing import Any

import torch
from bertd.bundle import POOLER_OUTPUT

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.graph.hidden_state import Reads, hidden_source, probe, replaced_rows
from bertd_export.graph.pooling import pool
from bertd_export.graph.position_bias import biased_attention
from bertd_export.graph.traced_operators import (
    first_rows,
    mean_rows,
    traced_biased_attention,
    traced_on,
)


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
        options = {"token_type_ids": token_type_ids[None]} if self.takes_types else {}
        biased = self.biased
        attention = nullcontext() if biased is None else biased.installed(traced_biased_attention)
        with traced_on(cu_seqlens) as batch, attention:
            output = self.model(
                input_ids=input_ids[None], position_ids=position_ids[None], **options
            )
        self.calls = batch.calls
        return output


class PackedEmbedder(PackedModel):
    """The encoder, its pooling and what follows."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.pooling = checkpoint.pooling
        self.after = torch.nn.ModuleList(checkpoint.after_pooling)
        self.source = hidden_source(self.model) if POOLER_OUTPUT in checkpoint.outputs else None

    def forward(  # noqa: PLR0913, PLR0917 - the inputs of the graph
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        pooled_tokens: torch.Tensor | None = None,
        pooled_seqlens: torch.Tensor | None = None,
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
                return first_rows(hidden[0], cu_seqlens)[:, None]

            with replaced_rows(self.source, first):
                extra = (self.run(*arguments).pooler_output,)
            rows = kept[0]
        read, bounds, before = rows, cu_seqlens, None
        if pooled_tokens is not None and pooled_seqlens is not None:
            read, bounds = rows.index_select(0, pooled_tokens), pooled_seqlens
            before = ((cu_seqlens - bounds)[1:] - (cu_seqlens - bounds)[:-1]).to(rows.dtype)
        vectors = [pool(mode, read, bounds, before) for mode in self.pooling]
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
            return first_rows(rows, cu_seqlens)[:, None]
        if self.reads == "mean":
            return mean_rows(rows, cu_seqlens)[:, None]
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
