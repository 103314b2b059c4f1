"""Attention with a bias from positions (MPNet, DeBERTa-v2 and v3), which bypasses the interface.

While the model is traced, the forward of its attention modules alone is replaced: q, k and v are
projected on packed rows, and one operator takes them together with the layer's *tables*, from
which the bias is made. What does not depend on the text, stock code computes at export. The rest is
traced by itself, once per model, as a function of q, k and the tables of one sequence
(:mod:`bertd_export.graph.biased_attention`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from bertd_export.checkpoint.families import FAMILIES
from bertd_export.errors import ExportError

Attend = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class BiasedLayer:
    """One attention module, and how to rebuild what its forward does."""

    module: Any
    query: torch.nn.Module
    key: torch.nn.Module
    value: torch.nn.Module
    heads: int
    scale: float
    tables: tuple[torch.Tensor, ...]
    finish: Callable[[torch.Tensor], tuple[Any, ...]]


@dataclass(frozen=True)
class BiasedAttention:
    """All attention modules of a model.

    `bias(q, k, *tables)` takes one sequence, q and k float32 `[1, tokens, width]`, and returns what
    is added to the scaled scores, float32 `[1, heads, tokens, tokens]`. `tables` are their names as
    inputs of the function, which kernels know it by: `distances` alone is one value for each head
    and distance, added as it is.
    """

    layers: list[BiasedLayer]
    bias: Callable[..., torch.Tensor]
    tables: tuple[str, ...]

    @contextmanager
    def installed(self, attend: Attend) -> Iterator[None]:
        """Let the modules call `attend(q, k, v, layer)`, with packed rows `[tokens, width]`."""
        for layer in self.layers:
            layer.module.forward = _forward(layer, attend)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.module.forward


def _forward(layer: BiasedLayer, attend: Attend) -> Callable[..., tuple[Any, ...]]:
    def forward(hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, ...]:
        projections = (layer.query, layer.key, layer.value)
        rows = (project(hidden_states).flatten(0, 1) for project in projections)
        return layer.finish(attend(*rows, layer)[None])

    return forward


def _projected(output: torch.nn.Module) -> Callable[[torch.Tensor], tuple[Any, ...]]:
    return lambda rows: (output(rows),)


def _by_distance(square: torch.Tensor) -> torch.Tensor:
    """One value for each distance between tokens, where the same distance has the same value.

    Reading buckets of distances from a table, rather than computing their logarithms while
    serving, makes them those of PyTorch on every machine.

    Args:
        square: `[..., tokens, tokens]`.

    Returns:
        `[..., 2 * tokens - 1]`; the distance i - j stands at i - j + tokens - 1.

    Raises:
        ExportError: values depend on more than the distance.
    """
    tokens = square.shape[-1]
    values = torch.cat([square[..., 0, 1:].flip(-1), square[..., :, 0]], dim=-1)
    if not torch.equal(values[..., _distances(tokens, tokens)], square):
        raise ExportError("the position bias depends on more than the distance of two tokens")
    return values.contiguous()


def _distances(tokens: Any, longest: int) -> torch.Tensor:
    """Indices into a table of distances, int64 `[tokens, tokens]`."""
    positions = torch.arange(tokens)
    return positions[:, None] - positions[None] + (longest - 1)


def _mpnet(model: Any) -> BiasedAttention:
    encoder = model.encoder
    longest = int(model.config.max_position_embeddings)
    with torch.no_grad():
        table = _by_distance(encoder.compute_position_bias(torch.zeros(1, longest, 1))[0])
    layers = []
    for block in encoder.layer:
        attention = block.attention.attn
        layers.append(
            BiasedLayer(
                module=attention,
                query=attention.q,
                key=attention.k,
                value=attention.v,
                heads=attention.num_attention_heads,
                scale=float(attention.attention_head_size) ** -0.5,
                tables=(table,),
                finish=_projected(attention.o),
            )
        )

    def bias(q: torch.Tensor, _k: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        tokens = q.shape[1]
        values = table.index_select(1, _distances(tokens, longest).flatten())
        return values.reshape(1, -1, tokens, tokens)

    return BiasedAttention(layers, bias, ("distances",))


def _deberta_v2(model: Any) -> BiasedAttention:
    encoder = model.encoder
    kinds = [kind for kind in ("c2p", "p2c") if kind in (model.config.pos_att_type or ())]
    if encoder.conv is not None:
        raise ExportError("deberta-v2 with conv_kernel_size joins neighbouring tokens: unsupported")
    if not encoder.relative_attention or not kinds:
        raise ExportError("deberta-v2 without relative attention (c2p, p2c) is not supported")
    scale_factor = 1 + len(kinds)
    longest = int(model.config.max_position_embeddings)
    with torch.no_grad():
        buckets = _by_distance(encoder.get_rel_pos(torch.zeros(1, longest, 1))[0])
    layers = []
    for block in encoder.layer:
        attention = block.attention.self
        if attention.share_att_key:
            projections = {"c2p": attention.key_proj, "p2c": attention.query_proj}
        else:
            projections = {
                kind: getattr(attention, name)
                for kind, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj"))
                if kind in kinds
            }
        with torch.no_grad():
            relative = encoder.get_rel_embedding()[: 2 * attention.pos_ebd_size][None]
            tables = tuple(projections[kind](relative) for kind in kinds)
        layers.append(
            BiasedLayer(
                module=attention,
                query=attention.query_proj,
                key=attention.key_proj,
                value=attention.value_proj,
                heads=attention.num_attention_heads,
                scale=float(attention.attention_head_size * scale_factor) ** -0.5,
                tables=(buckets, *tables),
                finish=lambda rows: (rows, None),
            )
        )
    first = layers[0].module

    def bias(
        q: torch.Tensor, k: torch.Tensor, buckets: torch.Tensor, *tables: torch.Tensor
    ) -> torch.Tensor:
        known = dict(zip(kinds, tables, strict=True))
        stand_in = SimpleNamespace(
            share_att_key=False,
            pos_att_type=kinds,
            pos_key_proj=lambda _: known["c2p"],
            pos_query_proj=lambda _: known["p2c"],
            transpose_for_scores=first.transpose_for_scores,
            num_attention_heads=first.num_attention_heads,
            pos_ebd_size=first.pos_ebd_size,
            position_buckets=first.position_buckets,
            max_relative_positions=first.max_relative_positions,
        )
        tokens = q.shape[1]
        relative = buckets.index_select(0, _distances(tokens, longest).flatten())
        relative = relative.reshape(tokens, tokens)
        query, key = (first.transpose_for_scores(x, first.num_attention_heads) for x in (q, k))
        score: torch.Tensor = type(first).disentangled_attention_bias(
            stand_in,
            query,
            key,
            relative[None],
            tables[0][0],
            scale_factor,
        )
        return score[None]

    return BiasedAttention(layers, bias, ("buckets", *kinds))


_MAKERS: dict[str, Callable[[Any], BiasedAttention]] = {
    "mpnet": _mpnet,
    "deberta-v2": _deberta_v2,
}


def biased_attention(model: Any) -> BiasedAttention | None:
    """The layout of a model with position biases; None for one that uses the interface.

    Raises:
        ExportError: the family is known, this variant of it is not supported.
    """
    kind = model.config.model_type
    if kind not in FAMILIES or FAMILIES[kind].layout != "biased":
        return None
    return _MAKERS[kind](model)
