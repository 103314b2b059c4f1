"""A bundle beside the reference library, text by text: what the manifest records, or a refusal."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bertd.bundle import TextParity

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError, shortened
from bertd_export.text_parity import references, served
from bertd_export.text_parity.cases import RawText
from bertd_export.text_parity.references import Answer, Reference

_SHOWN_IDS = 8  # around the first that differs


def compare_texts(folder: Path, checkpoint: Checkpoint, tolerance: float) -> TextParity:
    """Compare a bundle's answers to raw texts with those of the reference library.

    Args:
        folder: the bundle, with its manifest.
        checkpoint: from which it was made.
        tolerance: the largest absolute difference of any value.

    Raises:
        ExportError: one is larger; the first differing text, its ids and value are shown.
    """
    reference = references.ask(checkpoint)
    with served.opened(folder) as model:
        answers = served.answer(model, reference.texts)
        largest, worst, count = -1.0, "", 0
        for one, want, got in zip(reference.texts, reference.answers, answers, strict=True):
            if got is None:
                continue
            count += 1
            difference, where = _difference(got, want)
            if not difference <= tolerance:
                ids = references.token_ids(checkpoint, one), served.token_ids(model, one)
                found = f"{where}, a difference of {difference:.3g} (tolerance {tolerance:.3g})"
                raise ExportError(_refusal(reference, one, found, ids))
            if difference > largest:
                largest, worst = difference, _named(one)
    if not count:
        raise ExportError(
            f"{checkpoint.folder}: of the texts that answers are compared on, in eight languages "
            f"and in words of the vocabulary, the tokenizer finds a token in none, or none has so "
            f"few as max_position_embeddings lets the model read ({checkpoint.max_tokens}): give "
            f"the model's own tokenizer as tokenizer.json"
        )
    return TextParity(
        reference=reference.called,
        max_abs_diff=largest,
        tolerance=tolerance,
        texts=count,
        worst_case=worst,
        versions={name: version(name) for name in reference.packages},
    )


def _difference(got: Answer, want: Answer) -> tuple[float, str]:
    """The largest absolute difference, and what it belongs to; infinite where shapes differ.

    What one side alone has counts as nought on the other.
    """
    worst = (-1.0, "")
    for name in {**want, **got}:
        a, b = got.get(name), want.get(name)
        if a is None or b is None:
            value = float(np.abs(a if b is None else b).max(initial=0.0))  # type: ignore[arg-type]
            shown = f"{name} {'is not in the reference' if b is None else 'is missing'}"
        elif np.shape(a) != np.shape(b):
            value, shown = np.inf, f"{name} has the shape {np.shape(a)}, not {np.shape(b)}"
        else:
            apart = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
            place = int(apart.argmax())
            value = float(apart.flat[place])
            shown = f"{name} is {np.ravel(a)[place]:.6g}, not {np.ravel(b)[place]:.6g}"
        if not value <= worst[0]:
            worst = (value, shown)
    return worst


def _named(one: RawText) -> str:
    """A text, or a pair, with its prompt's name."""
    text = shortened(one.text) + ("" if one.pair is None else f" with {shortened(one.pair)}")
    return text if one.prompt_name is None else f"{text}, prompt_name {one.prompt_name!r}"


def _refusal(
    reference: Reference, one: RawText, found: str, ids: tuple[Sequence[int], Sequence[int]]
) -> str:
    package = reference.packages[0]
    return (
        f"bertd would not answer as {reference.called} ({package} {version(package)}) does on this "
        f"folder: {_named(one)}: {found}; {_ids(*ids)}. Report the checkpoint, or save it again "
        f"without what bertd does not read"
    )


def _ids(want: Sequence[int], got: Sequence[int]) -> str:
    """How the token ids of both sides, without prompts, compare."""
    got = got[: len(want)]
    first = next((n for n, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), None)
    if first is None:
        return f"the token ids are the same: {list(want[:_SHOWN_IDS])}"
    part = slice(max(0, first - 1), first + _SHOWN_IDS - 1)
    return f"token ids differ from place {first} on: {list(got[part])}, not {list(want[part])}"
