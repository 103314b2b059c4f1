"""Tasks with one answer for a text or a pair: similarity, ranking, labels, zero-shot labels."""

from collections.abc import Sequence

import numpy as np
from bertd.bundle import SENTENCE_EMBEDDING, heads

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.errors import ExportError
from bertd_export.evaluation import metrics
from bertd_export.evaluation.examples import Examples, one_of
from bertd_export.evaluation.scoring import (
    Encoder,
    EvaluationResult,
    Predict,
    accuracy,
    joined_logits,
)
from bertd_export.parity.agreement import cosine

HYPOTHESIS = "This example is {}."


def _scores(examples: Examples) -> list[float]:
    found = [line.number("score") for line in examples.lines]
    if len(set(found)) < 2:
        raise ExportError(
            f'{examples.source}: a rank correlation needs examples with different values of "score"'
        )
    return found


def _correlation(predicted: Sequence[float], scores: Sequence[float]) -> EvaluationResult:
    """Spearman's correlation; an example is as good as its rank is near that of its score."""
    away = np.abs(metrics.ranks(predicted) - metrics.ranks(scores)) / len(scores)
    return EvaluationResult({"spearman": metrics.spearman(predicted, scores)}, (-away).tolist())


class Similarity:
    """Embeddings: ``text``, ``text_pair``, ``score``. Spearman with the cosine of the two."""

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint)
        self._texts = [
            encode(line, line.text(field), prompt=checkpoint.default_prompt)
            for field in ("text", "text_pair")
            for line in examples.lines
        ]
        self._scores = _scores(examples)

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        vectors = [answer[SENTENCE_EMBEDDING] for answer in predict(self._texts)]
        half = len(self._scores)
        found = [cosine(a, b) for a, b in zip(vectors[:half], vectors[half:], strict=True)]
        return _correlation(found, self._scores)


class Scores:
    """A single logit: ``text``, ``text_pair`` for pairs, ``score``. Spearman."""

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        pairs = checkpoint.task == "text-ranking"
        encode = Encoder(checkpoint)
        if len(checkpoint.head.labels) != 1:
            raise ExportError(
                f"--evaluate measures a regression with one value; this model has "
                f"{len(checkpoint.head.labels)}"
            )
        self._texts = [
            encode(
                line,
                line.text("text"),
                line.text("text_pair") if pairs else line.optional_text("text_pair"),
                prompt=checkpoint.default_prompt,
            )
            for line in examples.lines
        ]
        self._scores = _scores(examples)

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        return _correlation(joined_logits(predict, self._texts)[:, 0].tolist(), self._scores)


class Classes:
    """One label for each text: ``text``, perhaps ``text_pair``, ``label``. Accuracy."""

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint)
        self._texts = [
            encode(
                line,
                line.text("text"),
                line.optional_text("text_pair"),
                prompt=checkpoint.default_prompt,
            )
            for line in examples.lines
        ]
        self._labels = [line.label("label", checkpoint.head.labels) for line in examples.lines]

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        scores = heads.class_scores(
            joined_logits(predict, self._texts), "single_label_classification"
        )
        return accuracy(scores.argmax(axis=1).tolist(), self._labels)


class LabelSets:
    """Any labels for each text: ``text``, perhaps ``text_pair``, ``labels``. Micro and macro F1.

    A label is predicted from a probability of one half on.
    """

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint)
        self._names = checkpoint.head.labels
        self._texts = [
            encode(
                line,
                line.text("text"),
                line.optional_text("text_pair"),
                prompt=checkpoint.default_prompt,
            )
            for line in examples.lines
        ]
        self._labels = [set(line.each_label("labels", self._names)) for line in examples.lines]

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        scores = heads.class_scores(
            joined_logits(predict, self._texts), "multi_label_classification"
        )
        found = [{self._names[n] for n in np.flatnonzero(row >= 0.5)} for row in scores]
        return EvaluationResult(
            {
                "micro_f1": metrics.micro_f1(self._labels, found),
                "macro_f1": metrics.macro_f1(self._labels, found),
            },
            [metrics.micro_f1([a], [b]) for a, b in zip(self._labels, found, strict=True)],
        )


class ZeroShot:
    """``text``, ``candidate_labels``, ``label``, perhaps ``hypothesis_template``. Accuracy."""

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint, cut="only_first")
        head = checkpoint.head
        self._entailment = head.entailment_label or 0
        self._contradiction = head.contradiction_label or 0
        self._texts: list[TokenizedText] = []
        self._counts: list[int] = []
        self._labels: list[int] = []
        for line in examples.lines:
            candidates = line.texts("candidate_labels", least=2)
            template = line.optional_text("hypothesis_template") or HYPOTHESIS
            if "{}" not in template:
                raise line.fault("hypothesis_template", 'a string with "{}" for the label')
            if line.text("label") not in candidates:
                raise line.fault("label", one_of(candidates))
            self._texts += [
                encode(line, line.text("text"), template.replace("{}", candidate))
                for candidate in candidates
            ]
            self._counts.append(len(candidates))
            self._labels.append(candidates.index(line.text("label")))

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        logits = np.split(joined_logits(predict, self._texts), np.cumsum(self._counts)[:-1])
        scores = [
            heads.zero_shot_scores(rows, self._entailment, self._contradiction) for rows in logits
        ]
        return accuracy([int(each.argmax()) for each in scores], self._labels)
