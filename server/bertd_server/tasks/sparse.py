"""fill-mask as SPLADE: a weight for each entry of the vocabulary, most of them 0.

For each entry the largest log(1 + max(0, logit)) over the text's tokens, special ones included, as
in "SPLADE v2" (Formal et al. 2021, https://arxiv.org/abs/2109.10086); or what a SparseEncoder's
checkpoint says instead. The engine pools: what leaves a lane is one row for a text, not one for
each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bertd import bundle
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array, Int64Array

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps, at_once
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tokenization.budget import RESULT_BYTES, answer_budget
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

_FLOAT = 4


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Entries of the vocabulary with weights above 0.

    Attributes:
        indices: int64 `[entries]`, token ids, ascending.
        values: float32 `[entries]`.
    """

    indices: Int64Array
    values: Float32Array


async def embed_sparse(  # noqa: PLR0913 - the choices of one call
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
        max_active_dims: so many weights at most, the largest; None for as many as the model's
            checkpoint says.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "EmbedSparse", "fill-mask")
    if max_active_dims is not None and max_active_dims < 1:
        raise InvalidInput(
            f"max_active_dims is {max_active_dims}: ask for at least 1 weight, or leave it out",
            field="max_active_dims",
            reason="out_of_range",
            limit=1,
        )
    rules = model.manifest.sparse or bundle.SparseRules()
    count = max_active_dims or rules.max_active_dims

    answers = answer_budget(caller.answer_bytes)
    inputs: dict[int, Input] = {}

    def note(reading: Reading, one: Input) -> None:
        inputs[id(reading)] = one

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[SparseVector]:
        weights = heads.most_active(outputs[0][bundle.SPARSE_EMBEDDING][0], count)
        indices = np.flatnonzero(weights)
        one = inputs[id(reading)]
        try:
            refused = answers.spend(_bytes(indices), one)
        except InvalidInput as beyond:
            beyond.field = one.field  # those before it have their answers
            raise
        if refused is not None:
            raise refused
        return at_once(SparseVector(indices, weights[indices]))

    query = TaskQuery(
        (bundle.SPARSE_EMBEDDING,), conclude, prompt=model.prompt(prompt_name), check=note
    )
    return await ask(model, texts, fit, caller, query)


def _bytes(indices: Int64Array) -> int:
    """Of a vector in an answer, known only now: its weights, and its indices as varints."""
    longer = sum(int(np.count_nonzero(indices >= least)) for least in (2**7, 2**14))
    return RESULT_BYTES + (_FLOAT + 1) * len(indices) + longer
