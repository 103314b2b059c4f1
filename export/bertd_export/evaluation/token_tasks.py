"""Tasks that answer inside a text: tags of its words, answers to questions, masks."""

import numpy as np
import tokenizers
from bertd.bundle import END_LOGITS, LOGITS, START_LOGITS, heads
from bertd.bundle.tags import OUTSIDE

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TextOutputs, TokenizedText
from bertd_export.evaluation import metrics
from bertd_export.evaluation.examples import Examples
from bertd_export.evaluation.scoring import (
    Encoder,
    EvaluationResult,
    Predict,
    accuracy,
    joined_logits,
)

ANSWER_TOKENS = 30  # longest answer of question-answering, as in SQuAD's reference


class Tags:
    """``tokens``, a list of words, and ``tags``, a label for each. Entity F1 and accuracy.

    The model reads the words with a space between them, as a server would; a word's label is that
    of its first token.
    """

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint)
        self._names = checkpoint.head.labels
        self._scheme = checkpoint.head.label_scheme
        self._texts: list[TokenizedText] = []
        self._places: list[list[int | None]] = []
        self._tags: list[list[str]] = []
        for line in examples.lines:
            words = line.texts("tokens", least=1)
            tags = line.each_label("tags", self._names)
            if len(tags) != len(words):
                raise line.fault("tags", f"a list of {len(words)} labels, one for each token")
            encoding = encode.encoding(line, " ".join(words))
            self._texts.append(encode.text(encoding))
            self._places.append(_first_tokens(words, encoding))
            self._tags.append(tags)

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        outside = self._scheme.outside if self._scheme else OUTSIDE
        found = []
        for answer, places in zip(predict(self._texts), self._places, strict=True):
            best, _ = heads.token_labels(answer[LOGITS])
            found.append([outside if n is None else self._names[best[n]] for n in places])
        pairs = [
            [float(a == b) for a, b in zip(tags, guess, strict=True)]
            for tags, guess in zip(self._tags, found, strict=True)
        ]
        f1 = metrics.micro_f1(
            [metrics.entities(tags, self._scheme) for tags in self._tags],
            [metrics.entities(tags, self._scheme) for tags in found],
        )
        return EvaluationResult(
            {"entity_f1": f1, "accuracy": float(np.mean(np.concatenate(pairs)))},
            [float(np.mean(right)) for right in pairs],
        )


def _first_tokens(words: list[str], encoding: tokenizers.Encoding) -> list[int | None]:
    """The number of each word's first token; None for a word that was cut off or left no token."""
    found: list[int | None] = []
    start = 0
    for word in words:
        end = start + len(word)
        inside = (
            number
            for number, (first, last) in enumerate(encoding.offsets)
            if first < end and last > start and not encoding.special_tokens_mask[number]
        )
        found.append(next(inside, None))
        start = end + 1
    return found


class Questions:
    """``question``, ``context``, ``answers``, a list, empty for none. Exact match and F1 of SQuAD.

    Whether a question may have no answer is decided for the file: it does if any has none.
    """

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint, cut="only_second")
        lines = examples.lines
        self._contexts = [line.text("context") for line in lines]
        self._encodings = [
            encode.encoding(line, line.text("question"), context)
            for line, context in zip(lines, self._contexts, strict=True)
        ]
        for line, encoding in zip(lines, self._encodings, strict=True):
            if 1 not in encoding.sequence_ids:
                raise line.fault("context", "a string of which the tokenizer makes tokens")
        self._texts = [encode.text(encoding) for encoding in self._encodings]
        self._answers = [line.texts("answers") for line in lines]
        self._none_allowed = not all(self._answers)

    def _answer(self, number: int, answer: TextOutputs) -> str:
        encoding = self._encodings[number]
        (best,) = heads.best_spans(
            answer[START_LOGITS],
            answer[END_LOGITS],
            np.array([part == 1 for part in encoding.sequence_ids]),
            max_tokens=ANSWER_TOKENS,
            allow_no_answer=self._none_allowed,
        )
        if not best.is_answer:
            return ""
        offsets = encoding.offsets
        return self._contexts[number][offsets[best.start][0] : offsets[best.end][1]]

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        found = [self._answer(*each) for each in enumerate(predict(self._texts))]
        exact = list(map(metrics.exact_match, self._answers, found))
        f1 = list(map(metrics.answer_f1, self._answers, found))
        return EvaluationResult(
            {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}, f1
        )


class Masks:
    """``text`` with one mask token, ``answer``, which is a token. Accuracy of the best token."""

    def __init__(self, examples: Examples, checkpoint: Checkpoint) -> None:
        encode = Encoder(checkpoint)
        tokenizer = checkpoint.tokenizer
        mask = checkpoint.head.mask_token_id
        name = tokenizer.id_to_token(mask) if mask is not None else None
        self._texts: list[TokenizedText] = []
        self._answers: list[set[int]] = []
        for line in examples.lines:
            text = encode(line, line.text("text"))
            if np.count_nonzero(text.ids == mask) != 1:
                raise line.fault("text", f"a string with {name} in it once")
            answer = line.text("answer")
            spelled = [
                tokenizer.encode(prefix + answer, add_special_tokens=False).ids
                for prefix in ("", " ")  # byte-level tokenizers tell the two apart
            ]
            allowed = {ids[0] for ids in spelled if len(ids) == 1}
            whole = tokenizer.token_to_id(answer)
            if whole is not None:
                allowed.add(whole)
            if not allowed:
                raise line.fault("answer", "a single token of the model's vocabulary")
            self._texts.append(text)
            self._answers.append(allowed)

    def measure(self, predict: Predict) -> EvaluationResult:
        """Score the graph behind `predict`."""
        best, _ = heads.top_tokens(joined_logits(predict, self._texts), 1)
        right = [
            int(token in allowed)
            for token, allowed in zip(best[:, 0].tolist(), self._answers, strict=True)
        ]
        return accuracy(right, [1] * len(right))
