"""How the input of a linear layer becomes uint8, chosen by what calibration saw of it.

Every formulation quantises a row with constants or with numbers of that row alone, so an answer
cannot depend on its batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Formulation = Literal["static", "smoothed", "gelu_row", "row"]

GELU_FLOOR = 0.17  # Gelu never goes below -0.17
GELU_ZERO = 16  # levels below zero that it gets
ROW_ZERO = 128
MARGIN = 1.05  # room above the largest value that calibration saw
_ALPHA = 0.7  # share of the spread between channels that moves into the weights (SmoothQuant)
_AS_GOOD = 1.1  # an error up to this much larger buys the cheaper formulation
_SAMPLE = 32  # rows kept of each calibration batch


class Statistics:
    """What calibration learns about the rows that enter a linear layer."""

    def __init__(self, width: int) -> None:
        """Start with no rows of ``width`` channels."""
        self.channel_max: Floats = np.zeros(width, np.float32)
        self.lowest = 0.0
        self.gram: Floats = np.zeros((width, width), np.float32)
        self._samples: list[Floats] = []

    def add(self, rows: Floats) -> None:
        """Take in the rows of one batch, float32 ``[tokens, width]``."""
        self.channel_max = np.maximum(self.channel_max, np.abs(rows).max(axis=0))
        self.lowest = min(self.lowest, float(rows.min()))
        self.gram += rows.T @ rows
        self._samples.append(rows[:: max(1, len(rows) // _SAMPLE)].copy())

    @property
    def sample(self) -> Floats:
        """Some of the rows, to measure errors on."""
        return np.concatenate(self._samples)


@dataclass(frozen=True)
class Quantizer:
    """One way to make rows uint8.

    Attributes:
        formulation: ``static`` and ``smoothed`` use one scale for all rows, ``row`` and
            ``gelu_row`` one for each row.
        scale: float value of one level; of rows divided by their largest value where the scale
            is the row's.
        zero_point: the level of 0.0.
        smooth: what each input channel is divided by, ``[inputs]``; the weight takes it on.
    """

    formulation: Formulation
    scale: float
    zero_point: int
    smooth: Floats

    @property
    def floor(self) -> float:
        """The least row scale."""
        if self.formulation == "gelu_row":
            return GELU_FLOOR * (255 - GELU_ZERO) / GELU_ZERO
        return 1e-6

    def restore(self, rows: Floats) -> Floats:
        """Rows after a way there and back, float32 ``[tokens, inputs]``."""
        smoothed = rows / self.smooth
        unit: Floats = np.ones((len(rows), 1), np.float32)
        if self.formulation in {"row", "gelu_row"}:
            peak = smoothed if self.formulation == "gelu_row" else np.abs(smoothed)
            unit = np.maximum(peak.max(axis=1, keepdims=True), self.floor)
        levels = np.rint(smoothed / unit / self.scale) + self.zero_point
        levels = np.clip(levels, 0, 255) - self.zero_point
        restored: Floats = (levels * self.scale * unit * self.smooth).astype(np.float32)
        return restored


def _smoothing(channel_max: Floats, weights: Sequence[Floats]) -> Floats:
    inputs = np.maximum(channel_max, 1e-2)
    columns = np.maximum(np.max([np.abs(w).max(axis=1) for w in weights], axis=0), 1e-3)
    factors = inputs**_ALPHA / columns ** (1 - _ALPHA)
    balanced: Floats = (factors / np.median(factors)).astype(np.float32)
    return balanced


def _static(statistics: Statistics, smooth: Floats, *, gelu: bool) -> Quantizer:
    largest = max(float((statistics.channel_max / smooth).max()) * MARGIN, 1e-6)
    formulation: Formulation = "static" if (smooth == 1).all() else "smoothed"
    if gelu:
        zero = max(1, round(255 * GELU_FLOOR / (GELU_FLOOR + largest)))
        scale = max(GELU_FLOOR / zero, largest / (255 - zero))
        return Quantizer(formulation, scale, zero, smooth)
    return Quantizer(formulation, largest / 127, 128, smooth)


def activation_error(quantizer: Quantizer, sample: Floats, weights: Sequence[Floats]) -> float:
    """Relative error of the products of the sample rows that the quantised input causes."""
    lost = quantizer.restore(sample) - sample
    error = sum(float(np.square(lost @ w).sum()) for w in weights)
    return float(
        np.sqrt(error / max(sum(float(np.square(sample @ w).sum()) for w in weights), 1e-12))
    )


def choose(producer: str, statistics: Statistics, weights: Sequence[Floats]) -> Quantizer:
    """The cheapest quantiser that is as good as the careful one for this kind of input.

    Args:
        producer: the operator that computed the input.
        statistics: what calibration saw.
        weights: of the linear layers that read it, ``[inputs, outputs]`` each.
    """
    ones = np.ones(len(statistics.channel_max), np.float32)
    gelu = producer == "Gelu"
    static = _static(statistics, ones, gelu=gelu)
    if gelu:
        careful = Quantizer("gelu_row", 1 / (255 - GELU_ZERO), GELU_ZERO, ones)
    elif producer == "LayerNormalization":
        smooth = _smoothing(statistics.channel_max, weights)
        careful = _static(statistics, smooth, gelu=False)
    elif producer == "Attention":
        return static
    else:
        careful = Quantizer("row", 1 / 127, ROW_ZERO, ones)
    sample = statistics.sample
    limit = _AS_GOOD * activation_error(careful, sample, weights)
    return static if activation_error(static, sample, weights) <= limit else careful
