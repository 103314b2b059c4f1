"""What the answers of several tasks have in common: plain values that know no protocol.

::

    Answered    how the answer came about: tokens, timings, batch
    Stretch     a part of a text: text[start:end], and the same in bytes of UTF-8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bertd.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a text, ends exclusive. Empty, with zeros, for what has no place in a text."""

    start: int
    """First Unicode code point, so that ``text[start:end]`` is it."""
    end: int
    """Code point after the last one."""
    start_byte: int
    """The same in bytes of the text's UTF-8."""
    end_byte: int
    """The same in bytes of the text's UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How the answer to one input came about."""

    tokens: int
    """Tokens that the model read, special tokens and prompt included."""
    truncated_tokens: int
    """Tokens that were cut off; zero unless ``long_text="truncate"``."""
    windows: int
    """Windows in which they were read; one unless ``long_text="window"``."""
    tokenize_s: float
    """Seconds of turning the call's texts into tokens."""
    queue_s: float
    """Seconds of waiting for a lane; zero if the answer came from the server's cache."""
    compute_s: float
    """Seconds of running the batch; zero likewise."""
    total_s: float
    """Seconds from the call's arrival at the server to the last of its answers."""
    batch_sequences: int
    """Texts in the batch, those of other calls included; zero if it came from the cache."""
    batch_tokens: int
    """Tokens in the batch; zero likewise."""


def how(result: Any) -> dict[str, Any]:
    """The fields of :class:`Answered`."""
    return {
        "tokens": result.tokens.read,
        "truncated_tokens": result.tokens.truncated,
        "windows": result.tokens.windows,
        "tokenize_s": result.timings.tokenize_ns / 1e9,
        "queue_s": result.timings.queue_ns / 1e9,
        "compute_s": result.timings.compute_ns / 1e9,
        "total_s": result.timings.total_ns / 1e9,
        "batch_sequences": result.batch.sequences,
        "batch_tokens": result.batch.tokens,
    }


def stretch(offsets: pb.Offsets) -> dict[str, int]:
    """The fields of :class:`Stretch`."""
    return {
        "start": offsets.start,
        "end": offsets.end,
        "start_byte": offsets.start_byte,
        "end_byte": offsets.end_byte,
    }
