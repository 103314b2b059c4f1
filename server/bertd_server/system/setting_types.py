"""Kinds of values that settings take: names to choose from, and amounts of memory."""

from __future__ import annotations

import re
from typing import Literal

ModelControl = Literal["none", "explicit", "poll"]
Provider = Literal["cpu", "cuda", "tensorrt", "openvino"]
Switch = Literal["off", "on"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Profile = Literal["latency", "efficient"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_QUOTED = 100  # characters
_AMOUNT = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMG]I?)?B?\s*")


def parse_bytes(amount: object) -> int:
    """Read an amount of memory: `2GiB`, `500 MB`, `1073741824`.

    Raises:
        ValueError: it is none.
    """
    match = _AMOUNT.fullmatch(str(amount).upper())
    if match is None:
        raise ValueError(
            f"{str(amount)[:_QUOTED]!r} is no amount of memory: give bytes, or a number with "
            "KB, MB, GB, KiB, MiB or GiB, such as 2GiB"
        )
    return round(float(match[1]) * _UNITS[match[2] or ""])


def format_bytes(amount: float) -> str:
    """An amount in MiB, as a person reads it."""
    return f"{amount / 2**20:,.0f} MiB"
