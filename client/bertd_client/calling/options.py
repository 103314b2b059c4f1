"""The options that several calls have, by keyword; those of one stand beside it in its task.

::

    CallOptions          model, timeout, progress
      TaskOptions        long_text, truncation_side, priority
        WindowOptions    stride

Each is optional, and ``None`` is the same as to leave it out. Their words are those of the fields
and values of ``bertd.v1``: ``long_text="truncate"`` is ``LONG_TEXT_POLICY_TRUNCATE``.
"""

from __future__ import annotations

from typing import Literal, TypedDict

LongText = Literal["error", "truncate", "window"]
TruncationSide = Literal["right", "left"]
Priority = Literal["interactive", "bulk"]


class CallOptions(TypedDict, total=False):
    """Of every call that takes inputs."""

    model: str
    """Name of the model; by default the server's only or default one."""
    timeout: float | None
    """Seconds for all of it, retries and every call it is split into included; no limit by
    default."""
    progress: bool
    """Whether to show how far it is, on standard error if that is a terminal; not by default."""


class TaskOptions(CallOptions, total=False):
    """Of every call that a model computes."""

    long_text: LongText
    """What to do with an input longer than the model reads. "error", the default, refuses it;
    "truncate" cuts it; "window" reads it in windows and merges what they say (not for ``classify``,
    ``classify_zero_shot`` and ``fill_mask``)."""
    truncation_side: TruncationSide
    """The end that "truncate" cuts; "right" by default."""
    priority: Priority
    """Which calls it goes before: "bulk" goes after what is "interactive", the default, when the
    server has more than it can do at once."""


class WindowOptions(TaskOptions, total=False):
    """Of the calls that read long texts in windows; all that ``embed_tokens`` takes but prompts."""

    stride: int
    """Tokens that neighbouring windows of "window" share; 0 by default."""
