"""Names of labels to what they mean: schemes of entities, and what inference models call theirs.

::

    O, B-PER, I-PER, … ──label_scheme──> B and I before a "-"
    neutral, entailment, contradiction ──inference_labels──> 1, 2
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bertd.bundle import LabelScheme
from bertd.bundle.tags import OUTSIDE, ROLES, divided

from bertd_export.errors import ExportError

_ALPHABETS = [set(letters) for letters in ("BI", "IE", "BIES", "BILU", "BMES", "BMEW")]
_FILLERS = {"X", "PAD"}  # what data sets call word pieces and padding, by no scheme
_PLACES: tuple[tuple[Literal["prefix", "suffix"], int], ...] = (("prefix", 1), ("suffix", -2))


@dataclass(frozen=True)
class InferenceLabels:
    """What the labels of an inference model are called; None where their names shall say it.

    Attributes:
        entailment: the label of what a text implies.
        contradiction: the label of what it excludes.
    """

    entailment: str | None = None
    contradiction: str | None = None


NAMES_SAY = InferenceLabels()


def label_scheme(labels: Sequence[str]) -> LabelScheme | None:
    """The scheme that labels of token-classification follow; None if they are bare names.

    One is recognised where some entity has labels with different letters, such as `B-PER` and
    `I-PER`, or where all labels but the outside one have the same letter, B or I. So `GPE-LOC` is
    not cut, nor is `E-MAIL` among bare names. Labels without a letter may stand beside a scheme.
    """
    outside = next((label for label in labels if label.upper() == OUTSIDE), OUTSIDE)
    named = [label for label in labels if label != outside and not _filler(label)]
    found = list(_schemes(named, outside))
    return max(found, key=lambda each: each[0])[1] if found else None


def _schemes(named: Sequence[str], outside: str) -> Iterator[tuple[int, LabelScheme]]:
    """Each scheme that the labels could follow, and how many of them do."""
    for position, place in _PLACES:
        for separator in sorted({label[place] for label in named if len(label) > 2}):
            for known in () if separator.isalnum() else (ROLES, {key.lower() for key in ROLES}):
                parts = [divided(label, position, separator) for label in named]
                cut = [(letter, name) for letter, name in parts if letter in known and name]
                letters = {letter for letter, _ in cut}
                names = {name for _, name in cut}
                if not any({one.upper() for one in letters} <= alphabet for alphabet in _ALPHABETS):
                    continue
                # VITAMIN-C beside VITAMIN-B and VITAMIN-E
                if any(len(one) == 1 and one not in known and name in names for one, name in parts):
                    continue
                paired = len(set(cut)) > len(names)
                lone = len(cut) == len(named) and "".join(letters) in ("B", "I", "b", "i")
                if paired or lone:
                    yield (
                        len(cut),
                        LabelScheme(
                            position=position,
                            separator=separator,
                            letters=tuple(sorted(letters)),
                            outside=outside,
                        ),
                    )


def _filler(label: str) -> bool:
    return label.upper() in _FILLERS or label[:1] + label[-1:] in ("[]", "<>")


def inference_labels(labels: Sequence[str], given: InferenceLabels) -> tuple[int, int]:
    """Places of entailment and contradiction among the labels of an inference model.

    Where nobody names the contradiction and no label begins with "contra", it is the other one of
    two labels, and else the one that transformers' pipeline takes: the first label, or the last
    where entailment is the first.

    Raises:
        ExportError: neither the names nor the user say which is entailment, or a label that the
            user names is not there.
    """
    entailment = _named(labels, "entail", given.entailment, "--entailment-label")
    if entailment is None or len(labels) < 2:
        raise ExportError(
            "zero-shot-classification needs a natural language inference model with one "
            f"entailment label; this one has the labels {', '.join(labels)}: say which it is with "
            "--entailment-label NAME, and with --contradiction-label NAME what is weighed "
            "against it"
        )
    contradiction = _named(labels, "contra", given.contradiction, "--contradiction-label")
    if contradiction is None:
        contradiction = len(labels) - 1 if entailment == 0 else 0
    if contradiction == entailment:
        raise ExportError(
            f"{labels[entailment]} cannot be both entailment and contradiction: name two labels "
            "with --entailment-label and --contradiction-label"
        )
    return entailment, contradiction


def _named(labels: Sequence[str], start: str, given: str | None, option: str) -> int | None:
    """The place of the label that the user names, or else of the only one that begins so."""
    if given is not None:
        if given not in labels:
            raise ExportError(
                f"{option} {given!r} is not a label of the model: it has {', '.join(labels)}"
            )
        return labels.index(given)
    found = [place for place, label in enumerate(labels) if label.lower().startswith(start)]
    return found[0] if len(found) == 1 else None
