"""Pooling on packed rows, as it is traced.

::

    rows [tokens, width], boundaries of sequences ──pool──> [sequences, width]
"""

import torch
from bertd.bundle import Pooling

from bertd_export.graph.traced_operators import max_rows, mean_rows, weighted_mean_rows


def pool(
    mode: Pooling, rows: torch.Tensor, bounds: torch.Tensor, before: torch.Tensor | None = None
) -> torch.Tensor:
    """One mode of pooling, `[sequences, width]`.

    Args:
        mode: as sentence-transformers calls it.
        rows: those that are pooled, `[tokens, width]`.
        bounds: int64 `[sequences + 1]`, where the rows of each sequence start, and the end.
        before: float `[sequences]`, how many rows of each sequence precede those that are pooled;
            None where all are.
    """
    if mode == "cls":
        return rows.index_select(0, bounds[:-1])
    if mode == "lasttoken":
        return rows.index_select(0, bounds[1:] - 1)
    if mode == "max":
        return max_rows(rows, bounds)
    lengths = (bounds[1:] - bounds[:-1]).to(rows.dtype)[:, None]
    if mode == "weightedmean":
        return _weighted_mean(rows, bounds, lengths, before)
    pooled = mean_rows(rows, bounds)
    return pooled * lengths.sqrt() if mode == "mean_sqrt_len_tokens" else pooled


def _weighted_mean(
    rows: torch.Tensor, bounds: torch.Tensor, lengths: torch.Tensor, before: torch.Tensor | None
) -> torch.Tensor:
    """Each row weighs its place in the whole sequence, from 1 on."""
    weighted = weighted_mean_rows(rows, bounds)
    if before is None:
        return weighted
    # Places count from the sequence's first row: each weighs more by the rows that precede all.
    share, rest = before[:, None] * lengths, lengths * (lengths + 1) / 2
    return (mean_rows(rows, bounds) * share + weighted * rest) / (share + rest)
