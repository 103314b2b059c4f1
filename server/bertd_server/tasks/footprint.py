"""What a call takes in memory, before it takes it: arithmetic on lengths, in bytes.

::

    characters ──of_inputs──> to reserve, before anything is read
    tokens, windows ──of_readings──> to correct that, before anything is computed

Estimates, a little above what was measured for texts of short words: Python's objects, arrays of
int64 for tokens, float32 for outputs, and the copies of an answer in its message and as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd import bundle

from bertd_server.models.proof import width_of
from bertd_server.tokenization.reader import Fit, Input, Reading

_CHARACTERS_A_TOKEN = 2  # short words and their blanks; Korean and Chinese come near it
_CHARACTER = 3  # bytes, of the message and of Python's text
_TOKEN = 24  # id, type and place, of a token in a window
_ENCODED = 120  # of a token as the tokenizer gives it
_DETAIL = 64  # of a token whose offsets are kept
_INPUT = 1_000  # of an input and its reply
_WINDOW = 1_200  # of a window on its way through the scheduler
_FLOAT = 4
_COPIES = 3  # of outputs: computed, in the message, as bytes
_ENTRY = 300  # of an answer that says something of each token
_SLICE_TOKENS = 50_000  # that are in memory as the tokenizer gives them: those of one long text


def of_inputs(  # noqa: PLR0913 - by keyword
    inputs: Sequence[Input],
    fit: Fit,
    manifest: bundle.Manifest,
    outputs: Sequence[str],
    prompt: str = "",
    *,
    details: bool = False,
) -> tuple[int, int]:
    """What a call will take, and of this what its texts take by themselves.

    Args:
        inputs: of the call.
        fit: what is done with long ones.
        manifest: of the model.
        outputs: of the graph, that are wanted.
        prompt: put before each text.
        details: whether offsets of tokens are wanted.
    """
    most = manifest.max_tokens
    characters = tokens = windows = read = longest = 0
    for one in inputs:
        characters += one.characters
        count = (one.characters + len(prompt)) // _CHARACTERS_A_TOKEN + 3
        longest = max(longest, count)
        parts, count = _windows(count, most, fit)
        windows += parts
        tokens += parts * min(count, most)
        read += count
    request = _CHARACTER * characters
    kept = windows * _WINDOW + tokens * _TOKEN + len(inputs) * _INPUT
    encoded = min(longest, _SLICE_TOKENS) * _ENCODED
    if details:
        kept += read * (_DETAIL + _ENTRY)
    return request + kept + encoded + _outputs(manifest, outputs, windows, tokens, 0), request


def of_readings(
    readings: Sequence[Reading], manifest: bundle.Manifest, outputs: Sequence[str]
) -> int:
    """What a call takes from now on that was read.

    Args:
        readings: of its inputs.
        manifest: of the model.
        outputs: of the graph, that are wanted.
    """
    windows = tokens = read = masks = 0
    counts_masks = any(_axis(manifest, name) == "masks" for name in outputs)
    characters = 0
    for reading in readings:
        characters += len(reading.source)
        read += reading.read if reading.details is not None else 0
        windows += len(reading.windows)
        for window in reading.windows:
            tokens += len(window.sequence)
            if counts_masks:
                ids = window.sequence.input_ids
                masks += int(np.count_nonzero(ids == manifest.mask_token_id))
    kept = windows * _WINDOW + tokens * _TOKEN + len(readings) * _INPUT
    kept += _CHARACTER * characters + read * (_DETAIL + _ENTRY)
    return kept + _outputs(manifest, outputs, windows, tokens, masks)


def of_tokens(inputs: Sequence[Input], *, kept: bool = True) -> tuple[int, int]:
    """What a call takes that only tokenises, and of this what its texts take by themselves.

    Args:
        inputs: of the call.
        kept: whether tokens are given, and not only counted.
    """
    characters = sum(one.characters for one in inputs)
    request = _CHARACTER * characters
    tokens = characters // _CHARACTERS_A_TOKEN + len(inputs)
    encoded = tokens * (_ENCODED + _ENTRY) if kept else min(tokens, _SLICE_TOKENS) * _ENCODED
    return request + encoded + len(inputs) * _INPUT, request


def of_ids(count: int) -> int:
    """What a call takes that writes so many token ids as texts."""
    return _INPUT + count * _TOKEN


def _windows(tokens: int, most: int, fit: Fit) -> tuple[int, int]:
    """In how many windows an input of so many tokens is read, and how many tokens are read."""
    if tokens <= most:
        return 1, tokens
    step = most - 2 - fit.stride
    if fit.long_text != "window" or step < 1:
        return 1, most
    return -(-tokens // step), tokens


def _outputs(
    manifest: bundle.Manifest, outputs: Sequence[str], windows: int, tokens: int, masks: int
) -> int:
    """Bytes of outputs and of the answers that are made of them."""
    rows = {"sequences": windows, "tokens": tokens, "masks": masks}
    values = 0
    for name in outputs:
        width, _ = width_of(manifest, name)
        values += rows[_axis(manifest, name)] * (width or 1)
    return _COPIES * _FLOAT * values


def _axis(manifest: bundle.Manifest, output: str) -> str:
    """What the rows of an output are of."""
    # The server makes this one itself, of the logits of all tokens.
    return "sequences" if output == bundle.SPARSE_EMBEDDING else manifest.outputs[output]
