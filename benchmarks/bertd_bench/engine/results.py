"""What `bertd bench engine` found of one bundle: times, memory, bits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.machine import Machine

MIXED = "16 mixed"
EQUAL = "16 equal"
LONG_AND_SHORT = "512 + 30 x 8"


class PaddingTax(BaseModel, frozen=True):
    """Milliseconds of batches, on a lane or wide, and the two ratios that should be near 1."""

    session: str
    milliseconds: dict[str, float]
    mixed_to_equal: float  # tokens/s of the mixed batch over those of equal lengths
    together_to_apart: float  # time of 512 + 30 x 8 over the sum of the two apart


class LaneTimes(BaseModel, frozen=True):
    """Milliseconds of one batch, and how much more lanes do than the wide session."""

    batch: str
    lane_alone: float
    lane_busy: float
    wide: float
    lanes_to_wide: float  # batches a second


class MemoryGrowth(BaseModel, frozen=True):
    """Resident bytes over many batches of random shapes.

    Attributes:
        batches: after warm-up.
        limit: bytes, as of `--memory-limit`; 0 for none.
        first_bytes: after every shape and token, as the server's own warm-up runs them.
        warm_bytes: after the random batches of warm-up.
        samples_bytes: evenly over the batches, and after the last.
    """

    batches: int
    limit: int
    max_batch_tokens: int
    first_bytes: int
    warm_bytes: int
    samples_bytes: list[int]

    @property
    def growth(self) -> float:
        """From the end of warm-up to the end, as a share."""
        return self.samples_bytes[-1] / self.warm_bytes - 1


class BitIdentity(BaseModel, frozen=True):
    """How many batches and texts were compared, and how many answers had other bits."""

    batches: int
    texts: int
    different: int


class EngineReport(BaseModel, frozen=True):
    """One run of `bertd bench engine`; parts that were left out are empty or None.

    Attributes:
        operators: by batch, the share of the time by kind of operator.
    """

    benchmark: Literal["engine"] = "engine"
    model: str
    precision: str
    threads: int
    lanes: int
    machine: Machine
    padding: list[PaddingTax] = []
    lane_rows: list[LaneTimes] = []
    operators: dict[str, dict[str, float]] = {}
    memory: MemoryGrowth | None = None
    identity: BitIdentity | None = None
