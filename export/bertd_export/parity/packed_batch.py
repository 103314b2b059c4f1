"""Texts through a packed graph: several become one batch, and its outputs those of each again.

::

    texts ──batches_of──> batches ──feed_of──> inputs of the graph ──session──> outputs ──> by text
"""

from typing import Any

import numpy as np
from bertd.bundle import (
    CU_SEQLENS,
    INPUT_IDS,
    LONG_RUNS,
    MASK_POSITIONS,
    POOLED_SEQLENS,
    POOLED_TOKENS,
    POSITION_IDS,
    SHORT_RUNS,
    TOKEN_TYPE_IDS,
)
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd.bundle.positions import number_positions
from bertd.bundle.prompts import pooled
from bertd.bundle.runs import arrange

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs, TokenizedText
from bertd_export.parity.agreement import compared_output

_BATCH_TOKENS = 1024


def batches_of(texts: list[TokenizedText]) -> list[list[TokenizedText]]:
    """The texts in order, in batches of at most 1024 tokens; a longer text is alone."""
    found: list[list[TokenizedText]] = [[]]
    for text in texts:
        if found[-1] and sum(len(t.ids) for t in found[-1]) + len(text.ids) > _BATCH_TOKENS:
            found.append([])
        found[-1].append(text)
    return found


def _arranged(texts: list[TokenizedText]) -> list[int]:
    """Numbers of the texts in the order in which they lie in a batch."""
    return [int(n) for n in arrange(np.array([len(text.ids) for text in texts])).order]


def feed_of(
    session: Any, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> dict[str, Int64Array]:
    """The packed batch of these texts, by the inputs that the session's graph has."""
    texts = [texts[number] for number in _arranged(texts)]
    lengths = np.array([len(text.ids) for text in texts], np.int64)
    boundaries = np.concatenate([[0], np.cumsum(lengths)])
    runs = arrange(lengths)
    offset = checkpoint.position_offset
    ids = np.concatenate([text.ids for text in texts])
    pooled_tokens, pooled_seqlens = pooled(boundaries, [text.prompt_tokens for text in texts])
    masks = np.flatnonzero(ids == checkpoint.head.mask_token_id)
    feed = {
        INPUT_IDS: ids,
        TOKEN_TYPE_IDS: np.concatenate([text.types for text in texts]),
        POSITION_IDS: number_positions(ids, boundaries, offset, checkpoint.unnumbered_token_id),
        CU_SEQLENS: boundaries,
        SHORT_RUNS: runs.short_runs,
        LONG_RUNS: runs.long_runs,
        MASK_POSITIONS: masks,
        POOLED_TOKENS: pooled_tokens,
        POOLED_SEQLENS: pooled_seqlens,
    }
    accepted = {entry.name for entry in session.get_inputs()}
    return {name: value for name, value in feed.items() if name in accepted}


def run_packed(
    session: Any, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> list[TextOutputs]:
    """Every output of each text, run as one packed batch."""
    feed = feed_of(session, checkpoint, texts)
    names = list(checkpoint.outputs)
    results = dict(zip(names, session.run(names, feed), strict=True))
    boundaries = feed[CU_SEQLENS]
    edges = {"sequences": np.arange(len(texts) + 1), "tokens": boundaries}
    if MASK_POSITIONS in feed:
        edges["masks"] = np.searchsorted(feed[MASK_POSITIONS], boundaries)
    outputs: dict[int, TextOutputs] = {}
    for place, number in enumerate(_arranged(texts)):
        outputs[number] = {
            name: results[name][slice(*edges[rows][place : place + 2])]
            for name, rows in checkpoint.outputs.items()
        }
    return [outputs[number] for number in range(len(texts))]


def run_texts(
    session: Any, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> list[TextOutputs]:
    """Every output of each text, in order, in batches of at most 1024 tokens."""
    batches = batches_of(texts)
    return [outputs for batch in batches for outputs in run_packed(session, checkpoint, batch)]


def compared_outputs(
    session: Any, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> list[Float32Array]:
    """The compared part of the answer to each text, in order."""
    return [compared_output(outputs) for outputs in run_texts(session, checkpoint, texts)]
