"""What scoring a task takes: examples read for a model, answers of a graph, metrics.

::

    example lines ──Encoder──> texts ──Predict──> outputs ──measure──> metrics, how good each is

:mod:`.sequence_tasks` has the tasks with one answer for a text or a pair, :mod:`.token_tasks`
those that answer inside a text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tokenizers
from bertd.bundle import LOGITS
from bertd.bundle.arrays import Float32Array

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs, TokenizedText, as_read
from bertd_export.errors import ExportError
from bertd_export.evaluation.examples import ExampleLine

Predict = Callable[[list[TokenizedText]], list[TextOutputs]]
"""A graph: the outputs for each of some texts."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics by name, and for each example how good the answer is, larger being better."""

    metrics: dict[str, float]
    goodness: list[float]


class Scoring(Protocol):
    """The labelled examples of one task."""

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict` on all examples."""
        ...


class Encoder:
    """Texts and pairs as the model reads them, over-long ones cut before their special tokens."""

    def __init__(self, checkpoint: Checkpoint, *, cut: str = "longest_first") -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(checkpoint.tokenizer.to_str())
        self._tokenizer.enable_truncation(checkpoint.max_tokens, strategy=cut)
        self._checkpoint = checkpoint

    def encoding(
        self, line: ExampleLine, text: str, pair: str | None = None
    ) -> tokenizers.Encoding:
        """What the tokenizer makes of a line's text or pair."""
        try:
            encoding = self._tokenizer.encode(text, pair)
        except Exception as error:  # a question that leaves its context no room
            raise ExportError(f"{line.place} cannot be tokenised: {error}") from error
        if not encoding.ids:
            raise ExportError(f"{line.place} leaves no tokens: remove it")
        return encoding

    def text(self, encoding: tokenizers.Encoding, prompt: str = "") -> TokenizedText:
        """The ids and types of an encoding, of a text that begins with that prompt."""
        return as_read(encoding, self._checkpoint, prompt=prompt)

    def __call__(
        self, line: ExampleLine, text: str, pair: str | None = None, *, prompt: str = ""
    ) -> TokenizedText:
        """The ids and types of a line's text or pair, with that prompt before it."""
        return self.text(self.encoding(line, prompt + text, pair), prompt)


def joined_logits(predict: Predict, texts: list[TokenizedText]) -> Float32Array:
    """The logits of sequence heads, `[texts, labels]`."""
    return np.concatenate([answer[LOGITS] for answer in predict(texts)])


def accuracy(predicted: Sequence[int], expected: Sequence[int]) -> EvaluationResult:
    """Accuracy; an answer is right or wrong."""
    right = [float(a == b) for a, b in zip(predicted, expected, strict=True)]
    return EvaluationResult({"accuracy": float(np.mean(right))}, right)
