"""text-ranking: how relevant documents are to a query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd import bundle
from bertd.bundle import heads

from bertd_server.engine.engine import GraphOutputs
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps, at_once
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.classification import ScoreFunction, scored
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading


async def score_pairs(  # noqa: PLR0913 - the choices of one call
    model: Model,
    pairs: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    score_function: ScoreFunction = "default",
    prompt_name: str | None = None,
) -> list[Reply[float]]:
    """Score pairs of query and document: the higher the more relevant, in order.

    Of windows of a document, the best one counts.

    Args:
        model: for text-ranking.
        pairs: query and document.
        fit: what to do with long documents.
        caller: how long they wait.
        score_function: how a logit becomes a score; the default is the model's activation.
        prompt_name: a prompt of the model, put before each query; None for its default, "" for
            none.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "Rerank", "text-ranking")
    activation = model.manifest.activation or "identity"

    def conclude(_reading: Reading, outputs: list[GraphOutputs]) -> Steps[float]:
        logits = np.concatenate([each[bundle.LOGITS] for each in outputs])
        scores = (
            heads.ranking_scores(logits, activation)
            if score_function == "default"
            else scored(logits[:, 0], score_function)
        )
        return at_once(float(scores.max()))

    query = TaskQuery((bundle.LOGITS,), conclude, prompt=model.prompt(prompt_name))
    return await ask(model, pairs, fit, caller, query)
