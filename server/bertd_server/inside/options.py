"""The options of each call, and of what is opened, by keyword.

::

    How            timeout, priority, long_text, truncation_side
      Windowed     stride
    OpenOptions    lanes, memory, batches, queue: a part of bertd_server.config.settings
    LoadOptions    the limits of one model

The words are those of the client and of `bertd.v1`, so that a program can move from one to the
other. Each option may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from bertd_server.errors import InvalidInput
from bertd_server.scheduling.scheduler import BULK, INTERACTIVE
from bertd_server.system.setting_types import Profile, Provider
from bertd_server.tasks.ask import CallContext
from bertd_server.tokenization.reader import Fit, LongText
from bertd_server.tokenization.truncation import CutSide

Priority = Literal["interactive", "bulk"]

_PRIORITIES: dict[str, int] = {"interactive": INTERACTIVE, "bulk": BULK}
_POLICIES = ("error", "truncate", "window")
_SIDES = ("right", "left")
_REMEDY = 'long_text="truncate"'


class How(TypedDict, total=False):
    """Of every call that a model computes."""

    timeout: float | None
    """Seconds until the answers are no longer wanted; no limit by default. What is still waiting
    then has `DeadlineMissed` as its outcome; a batch that runs is not interrupted."""
    priority: Priority
    """"bulk" goes after what is "interactive", the default."""
    long_text: LongText
    """What to do with an input that is longer than the model reads: "error", the default, refuses
    it; "truncate" cuts it; "window" reads it in windows and merges what they say."""
    truncation_side: CutSide
    """The end that "truncate" cuts; "right" by default."""


class Windowed(How, total=False):
    """Of the calls that read long texts in windows."""

    stride: int
    """Tokens that neighbouring windows share; 0 by default."""


class OpenOptions(TypedDict, total=False):
    """How models are run: settings of docs/configuration.md, with its defaults but for two.

    `max_request_seconds` is 0, no limit, and nothing is read from the environment.
    """

    lanes: int
    threads: int
    lane_niceness: int
    provider: Provider
    profile: Profile
    memory_limit: int | str
    cache_folder: str | Path
    warmup_seconds: float
    calibration_seconds: float
    max_batch_tokens: int
    max_batch_sequences: int
    max_queue_tokens: int
    max_queue_seconds: float
    max_queue_delay: float
    max_passed_over: int
    cache_bytes: int | str
    max_text_characters: int
    max_queue_characters: int
    max_request_seconds: float
    drain_seconds: float
    default_model: str


class LoadOptions(TypedDict, total=False):
    """What a model may have of its own, as in `model.toml`; the rest is that of all."""

    share: float
    """Of the lanes, beside the shares of other models that have work; 1 by default."""
    max_batch_tokens: int
    max_batch_sequences: int
    max_queue_tokens: int
    max_queue_seconds: float
    max_queue_delay: float
    max_passed_over: int
    cache_bytes: int | str


def caller(how: Mapping[str, Any]) -> CallContext:
    """How long the caller waits from now, and how urgently."""
    priority = how.get("priority", "interactive")
    _check("priority", priority, _PRIORITIES)
    timeout = how.get("timeout")
    if timeout is None:
        return CallContext(priority=_PRIORITIES[priority])
    return CallContext.within(timeout, _PRIORITIES[priority])


def fit(how: Mapping[str, Any], *, windows: bool = False, second_only: bool = False) -> Fit:
    """What to do with long inputs.

    Args:
        how: options of a call.
        windows: whether it reads them in windows.
        second_only: whether of a pair the second text alone is cut.

    Raises:
        InvalidInput: an option has a value that there is not.
    """
    long_text, side = how.get("long_text", "error"), how.get("truncation_side", "right")
    _check("long_text", long_text, _POLICIES if windows else _POLICIES[:2])
    _check("truncation_side", side, _SIDES)
    stride = how.get("stride", 0)
    if stride < 0:
        raise InvalidInput(
            f"stride is {stride}: give 0 or more", field="stride", reason="out_of_range", limit=0
        )
    return Fit(long_text, side, stride, second_only=second_only, remedy=_REMEDY)


def _check(name: str, value: object, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(
            f"{name} is {value!r}, and this call takes one of: {', '.join(known)}",
            field=name,
            reason="unknown_value",
        )
