"""fill-mask as SPLADE: a weight for each entry of the vocabulary, most of them 0.

For each entry the largest log(1 + max(0, logit)) over the text's tokens, special ones included, as
in "SPLADE v2" (Formal et al. 2021, https://arxiv.org/abs/2109.10086). The engine pools: what
leaves a lane is one row for a text, not one for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Float32Array, Int64Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Entries of the vocabulary with weights above 0.

    Attributes:
        indices: int64 `[entries]`, token ids, ascending.
        values: float32 `[entries]`.
    """

    indices: Int64Array
    values: Float32Array


async def embed_sparse(  # noqa: PLR0913 - options by keyword
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    prompt_name: str | None = None,
    max_active_dims: int | None = None,
) -> list[Reply[SparseVector]]:
    """Weigh the vocabulary for each text.

    Args:
        model: for fill-mask; trained for this, or the weights mean little.
        texts: no pairs.
        fit: what to do with long texts; no windows.
        caller: how long they wait.
        prompt_name: a prompt of the model; None for its default, "" for none.
        max_active_dims: weights to keep, the largest, of equal ones those of lower ids; None for
            all.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "EmbedSparse", "fill-mask")
    if max_active_dims is not None and max_active_dims < 1:
        raise InvalidInput(
            f"max_active_dims is {max_active_dims}: ask for 1 or more, or leave it out for all",
            field="max_active_dims",
            reason="out_of_range",
            limit=1,
        )

    def conclude(_reading: Reading, outputs: Sequence[GraphOutputs]) -> SparseVector:
        weights = outputs[0][bundle.SPARSE_EMBEDDING][0]
        indices = np.flatnonzero(weights)
        if max_active_dims is not None and max_active_dims < len(indices):
            order = np.argsort(-np.abs(weights[indices]), kind="stable")
            indices = np.sort(indices[order[:max_active_dims]])
        return SparseVector(indices, weights[indices])

    query = TaskQuery((bundle.SPARSE_EMBEDDING,), conclude, prompt=model.prompt(prompt_name))
    return await ask(model, texts, fit, caller, query)
