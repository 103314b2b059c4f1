"""The options of each call, and of what is opened, by keyword.

::

    How            timeout, priority, long_text, truncation_side
      Windowed     stride
        VectorOptions    prompt_name, dimensions, output_dtype, ranges
    OpenOptions    lanes, memory, batches, queue: a part of bertd_server.config.settings
    LoadOptions    the limits of one model

The words are those of the client and of `bertd.v1`, so that a program can move from one to the
other. Each option may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from bertd.bundle.kernels import KernelChoice
from numpy.typing import ArrayLike

from bertd_server.errors import InvalidInput
from bertd_server.scheduling.scheduler import BULK, INTERACTIVE
from bertd_server.system.setting_types import Profile, Provider
from bertd_server.tasks.ask import CallContext
from bertd_server.tasks.vectors import VectorDtype, VectorFormat
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


class VectorOptions(Windowed, total=False):
    """Of `embed`."""

    prompt_name: str | None
    """A prompt of the model; its default one by default, none if it is the empty string."""
    dimensions: int | None
    """The first values of each vector, of length one again where the model normalises; all by
    default."""
    output_dtype: VectorDtype
    """"float32", the default; "int8" and "uint8", a byte for each value, which need `ranges`;
    "binary" and "ubinary", int8 and uint8 with a bit for each value."""
    ranges: ArrayLike | None
    """The lowest and the highest value of vectors: `[2]` for all dimensions, or `[2, dimensions]`
    as sentence-transformers has them."""


class OpenOptions(TypedDict, total=False):
    """How models are run: settings of docs/configuration.md, with its defaults but for three.

    `max_request_seconds` and `max_request_tokens` are 0, no limit, and nothing is read from the
    environment.
    """

    lanes: int
    threads: int
    lane_niceness: int
    loop_run_seconds: float
    provider: Provider
    profile: Profile
    kernels: KernelChoice
    memory_limit: int | str
    cache_folder: str | Path
    warmup_seconds: float
    calibration_seconds: float
    first_calibration_seconds: float
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
    max_request_tokens: int
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


def vector_format(how: Mapping[str, Any]) -> VectorFormat:
    """How many values of each vector, and as which numbers.

    Raises:
        InvalidInput: ranges are of another shape.
    """
    dimensions, dtype = how.get("dimensions"), how.get("output_dtype", "float32")
    ranges = how.get("ranges")
    if ranges is None:
        return VectorFormat(dimensions, dtype)
    pair = np.asarray(ranges, np.float64)
    if pair.ndim not in (1, 2) or len(pair) != 2:
        raise InvalidInput(
            f"ranges has shape {list(pair.shape)}: give [2], the lowest and the highest value, or "
            "[2, dimensions]",
            field="ranges",
        )
    low, high = pair.reshape(2, -1).tolist()
    return VectorFormat(dimensions, dtype, low, high)


def _check(name: str, value: object, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(
            f"{name} is {value!r}, and this call takes one of: {', '.join(known)}",
            field=name,
            reason="unknown_value",
        )
