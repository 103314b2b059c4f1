"""What one call may ask for, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass

MOST_IDS = 100_000
"""Token ids that are written as one text."""
MOST_TOGETHER = 1_000_000
"""Characters, or ids, of a call that holds something for each of them."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a call may ask for.

    Attributes:
        max_texts: of one call.
        max_message_bytes: of one message, and of one answer.
        caches: whether results are kept.
    """

    max_texts: int = 256
    max_message_bytes: int = 16 * 1024 * 1024
    caches: bool = False
