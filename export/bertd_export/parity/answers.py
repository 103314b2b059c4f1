"""What a graph answers to texts, and the part of an answer by which two graphs are compared."""

from typing import Any

import numpy as np
from bertd.bundle import SENTENCE_EMBEDDING
from bertd.bundle.arrays import Float32Array

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.parity.cases import TokenizedText
from bertd_export.parity.parity import TextOutputs, run_packed

_BATCH_TOKENS = 1024


def batches(texts: list[TokenizedText]) -> list[list[TokenizedText]]:
    """The texts in order, in batches of at most 1024 tokens; a longer text is alone."""
    found: list[list[TokenizedText]] = [[]]
    for text in texts:
        if found[-1] and sum(len(t.ids) for t in found[-1]) + len(text.ids) > _BATCH_TOKENS:
            found.append([])
        found[-1].append(text)
    return found


def judged(answer: TextOutputs) -> Float32Array:
    """What of a text's answer is compared: the sentence embedding, or all logits side by side."""
    if SENTENCE_EMBEDDING in answer:
        return answer[SENTENCE_EMBEDDING]
    rows: Float32Array = np.concatenate(
        [part.reshape(len(part), -1) for part in answer.values()], axis=1
    )
    return rows


def answers(run: Any, checkpoint: Checkpoint, texts: list[TokenizedText]) -> list[TextOutputs]:
    """Every output for each text, in order."""
    return [answer for batch in batches(texts) for answer in run_packed(run, checkpoint, batch)]


def judged_answers(
    run: Any, checkpoint: Checkpoint, texts: list[TokenizedText]
) -> list[Float32Array]:
    """The compared part of the answer to each text, in order."""
    return [judged(answer) for answer in answers(run, checkpoint, texts)]
