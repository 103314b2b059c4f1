"""Texts on which int8 is calibrated and judged."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText, as_read
from bertd_export.errors import ExportError, shortened
from bertd_export.files.lines import split_lines

BUILT_IN = "built-in"
_EVERY = 3  # each third text judges, the others calibrate
_FEWEST = 6
_LONGEST = 512  # tokens read of one text
_MOST = 4096  # tokens that calibrate; more cost time and change little


@dataclass(frozen=True)
class CalibrationTexts:
    """Texts, and where they came from.

    Attributes:
        source: file name, or ``built-in``.
        sha256: of the file.
        calibrate: texts whose activations set scales and rounding.
        judge: texts that calibration never saw; the quality gate compares on them.
    """

    source: str
    sha256: str
    calibrate: list[str]
    judge: list[str]


def _line(line: str, number: int, source: str) -> str:
    if not source.endswith(".jsonl"):
        return line
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ExportError(f'{source}, line {number}: expected an object with a string "text"')
    return text


def read_sample(path: Path | None) -> CalibrationTexts:
    """Read the user's texts, or the built-in multilingual ones.

    Args:
        path: plain text, one text a line; ``.jsonl`` has objects with ``text``. None: built-in.

    Raises:
        ExportError: the file cannot be read, or has too few texts.
    """
    try:
        raw = (path or files("bertd_export") / "calibration.txt").read_bytes()
        lines = split_lines(raw)
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"calibration texts cannot be read: {error}") from error
    source = path.name if path else BUILT_IN
    texts = [_line(line, n, source).strip() for n, line in enumerate(lines, 1) if line.strip()]
    texts = [text for text in texts if text]
    if len(texts) < _FEWEST:
        raise ExportError(
            f"{source} has {len(texts)} texts, calibration needs {_FEWEST} or more "
            f"(some dozens, in the languages that will be served, are better)"
        )
    return CalibrationTexts(
        source=source,
        sha256=hashlib.sha256(raw).hexdigest(),
        calibrate=[text for n, text in enumerate(texts) if n % _EVERY != _EVERY - 1],
        judge=texts[_EVERY - 1 :: _EVERY],
    )


def tokenized(checkpoint: Checkpoint, texts: list[str]) -> list[TokenizedText]:
    """The texts as the model reads them, cut at its longest sequence.

    Where masks are filled, the token in the middle of each text becomes one.

    Raises:
        ExportError: the tokenizer makes no token of a text.
    """
    found = []
    for text in texts:
        encoding = checkpoint.tokenizer.encode(text)
        if not encoding.ids:
            raise ExportError(
                f"the tokenizer makes no token of the calibration text {shortened(text)!r}: "
                f"remove it"
            )
        text_read = as_read(encoding, checkpoint, longest=_LONGEST)
        if checkpoint.head.mask_token_id is not None:
            text_read.ids[len(text_read.ids) // 2] = checkpoint.head.mask_token_id
        found.append(text_read)
    return found


def for_calibration(checkpoint: Checkpoint, sample: CalibrationTexts) -> list[TokenizedText]:
    """The calibrating texts, evenly thinned out where they have more than 4096 tokens."""
    texts = tokenized(checkpoint, sample.calibrate)
    total = sum(len(text.ids) for text in texts)
    return texts[:: -(-total // _MOST)]
