"""How the input of a linear layer becomes uint8, chosen by what calibration saw of it.

Every formulation quantises a row with constants or with numbers of that row alone, so an answer
cannot depend on its batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from bertd.bundle.arrays import Float32Array, Int64Array

Formulation = Literal["static", "smoothed", "split", "gelu_row", "row"]

GELU_FLOOR = 0.17  # Gelu never goes below -0.17
GELU_ZERO = 16  # levels below zero that it gets where a scale is the row's
ROW_ZERO = 128
_ROOM = 1.2  # times the range that calibration saw is what one scale for all rows covers
_ATTENTION_ROOM = 1.6  # over few tokens attention averages less than calibration saw
ALPHA = 0.7  # share of the spread between channels that moves into the weights (SmoothQuant)
_AS_GOOD = 1.1  # an error up to this much larger buys the cheaper formulation
_GOOD_ENOUGH = 0.022  # so does a relative error below this
_SAMPLE = 1024  # rows on which formulations are compared
_SPLITS = (96, 48, 24)  # one copy for so many channels of Gelu, at most; the cheapest first
_LEAST_STEP = 2.5  # a copy of Gelu shifted by less would not be zero where the channel is small


class CalibrationRows:
    """The rows that entered a linear layer during calibration."""

    def __init__(self) -> None:
        """Start with no rows."""
        self._parts: list[Float32Array] = []

    def add(self, rows: Float32Array) -> None:
        """Take in the rows of one batch, float32 ``[tokens, width]``."""
        self._parts.append(rows)

    @property
    def rows(self) -> Float32Array:
        """All of them, float32 ``[tokens, width]``."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    @property
    def sample(self) -> Float32Array:
        """Some of the rows, to measure errors on."""
        rows = self.rows
        return rows[:: max(1, len(rows) // _SAMPLE)]


def _no_copies() -> Int64Array:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Quantizer:
    """One way to make rows uint8.

    Attributes:
        formulation: ``row`` and ``gelu_row`` use one scale for each row, the others one for all.
        scale: float value of one level; of rows divided by their largest value where the scale
            is the row's.
        zero_point: the level of 0.0.
        smooth: what each input channel is divided by, ``[inputs]``; the weight takes it on.
        copies: channels that stand again behind the others, ``[copies]`` (``split`` alone).
        shifts: what is taken off before Gelu in each copy, ``[copies]``.
    """

    formulation: Formulation
    scale: float
    zero_point: int
    smooth: Float32Array
    copies: Int64Array = field(default_factory=_no_copies)
    shifts: Float32Array = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def floor(self) -> float:
        """The least row scale."""
        if self.formulation == "gelu_row":
            return GELU_FLOOR * (255 - GELU_ZERO) / GELU_ZERO
        return 1e-6

    def prepared(self, rows: Float32Array) -> Float32Array:
        """Rows before they are rounded, float32 ``[tokens, inputs + copies]``.

        What Gelu makes of a shifted input is computed from what it made of the input: where the
        shifted one counts, Gelu hardly changes either.
        """
        smoothed: Float32Array = rows / self.smooth
        if not len(self.copies):
            return smoothed
        shifted = torch.from_numpy(np.maximum(smoothed[:, self.copies], 0) - self.shifts)
        again = torch.nn.functional.gelu(shifted).numpy()
        return np.concatenate([np.minimum(smoothed, self.largest), again], axis=1)

    @property
    def largest(self) -> float:
        """The largest value that a level stands for."""
        return self.scale * (255 - self.zero_point)

    def restored(self, rows: Float32Array) -> Float32Array:
        """Prepared rows after rounding, float32 ``[tokens, inputs + copies]``."""
        prepared = self.prepared(rows)
        unit: Float32Array = np.ones((len(rows), 1), np.float32)
        if self.formulation in {"row", "gelu_row"}:
            peak = prepared if self.formulation == "gelu_row" else np.abs(prepared)
            unit = np.maximum(peak.max(axis=1, keepdims=True), self.floor)
        levels = np.rint(prepared / unit / self.scale) + self.zero_point
        levels = np.clip(levels, 0, 255) - self.zero_point
        restored: Float32Array = (levels * self.scale * unit).astype(np.float32)
        return restored

    def weight(self, weight: Float32Array) -> Float32Array:
        """The weight that prepared rows are multiplied with, ``[inputs + copies, outputs]``."""
        scaled: Float32Array = weight * self.smooth[:, None]
        return np.concatenate([scaled, scaled[self.copies]]) if len(self.copies) else scaled


def smoothing(
    largest: Float32Array, weights: Sequence[Float32Array], alpha: float = ALPHA
) -> Float32Array:
    """What to divide each input channel by, so that rows and weights both round well.

    Args:
        largest: magnitude of each channel, ``[inputs]``.
        weights: of the linear layers that read it, ``[inputs, outputs]`` each.
        alpha: 1 makes all channels of the rows equally large, 0 all rows of the weights.
            Source: SmoothQuant (Xiao et al., 2023), equation 4.
    """
    inputs = np.maximum(largest, 1e-2)
    columns = np.maximum(np.max([np.abs(w).max(axis=1) for w in weights], axis=0), 1e-3)
    factors = inputs**alpha / columns ** (1 - alpha)
    balanced: Float32Array = (factors / np.median(factors)).astype(np.float32)
    return balanced


def _static(rows: Float32Array, smooth: Float32Array, room: float = _ROOM) -> Quantizer:
    smoothed = rows / smooth
    low, high = min(float(smoothed.min()), 0.0), max(float(smoothed.max()), 0.0)
    scale = max(room * (high - low), 1e-6) / 255
    middle = (low + high) / 2
    zero = min(max(round(127.5 - middle / scale), 0), 255)
    return Quantizer("static" if (smooth == 1).all() else "smoothed", scale, zero, smooth)


def _gelu_static(largest: float, ones: Float32Array) -> Quantizer:
    zero = max(1, round(255 * GELU_FLOOR / (GELU_FLOOR + largest)))
    scale = max(GELU_FLOOR / zero, largest / (255 - zero))
    return Quantizer("static", scale, zero, ones)


def _split(channel_max: Float32Array, ones: Float32Array, budget: int) -> Quantizer:
    """One scale for all rows, of a range that a few channels exceed; copies hold the excess.

    Above 4, Gelu is the identity, and uint8 saturates. So a channel that reaches ``n`` times the
    range is the sum of ``n`` columns, each shifted by one range more than the one before.
    """

    def steps(largest: float) -> Int64Array:
        further: Int64Array = (np.ceil(channel_max / largest) - 1).clip(0).astype(np.int64)
        return further

    low, high = _LEAST_STEP, max(float(channel_max.max()), _LEAST_STEP)
    while high - low > 1e-2:
        middle = (low + high) / 2
        low, high = (low, middle) if steps(middle).sum() <= budget else (middle, high)
    plain = _gelu_static(high, ones)
    counts = steps(plain.largest)
    copies = np.repeat(np.arange(len(counts)), counts)
    order = np.concatenate([np.arange(1, n + 1) for n in counts])
    shifts = (order * plain.largest).astype(np.float32)
    return Quantizer("split", plain.scale, plain.zero_point, ones, copies, shifts)


def activation_error(
    quantizer: Quantizer, rows: Float32Array, weights: Sequence[Float32Array]
) -> float:
    """Relative error of the products of the rows that the quantised input causes."""
    restored = quantizer.restored(rows)
    exact = [rows @ weight for weight in weights]
    lost = sum(
        float(np.square(restored @ quantizer.weight(weight) - product).sum())
        for weight, product in zip(weights, exact, strict=True)
    )
    return float(np.sqrt(lost / max(sum(float(np.square(e).sum()) for e in exact), 1e-12)))


def choose(
    producer: str,
    calibration: CalibrationRows,
    weights: Sequence[Float32Array],
    *,
    may_split: bool = False,
) -> Quantizer:
    """The cheapest quantiser that is good enough, or as good as the careful one.

    Args:
        producer: the operator that computed the input.
        calibration: the rows that calibration saw.
        weights: of the linear layers that read it, ``[inputs, outputs]`` each.
        may_split: whether channels of the input can be computed again with a shift.
    """
    rows = calibration.rows
    ones = np.ones(rows.shape[1], np.float32)
    if producer == "Gelu":
        channel_max = np.maximum(rows.max(axis=0), 0) * _ROOM
        cheaper = [_gelu_static(max(float(channel_max.max()), 1e-3), ones)]
        if may_split:
            cheaper += [_split(channel_max, ones, len(ones) // share) for share in _SPLITS]
        careful = Quantizer("gelu_row", 1 / (255 - GELU_ZERO), GELU_ZERO, ones)
    elif producer == "LayerNormalization":
        cheaper = [_static(rows, ones)]
        careful = _static(rows, smoothing(np.abs(rows).max(axis=0), weights))
    elif producer == "Attention":
        return _static(rows, ones, _ATTENTION_ROOM)
    else:
        cheaper = [_static(rows, ones)]
        careful = Quantizer("row", 1 / 127, ROW_ZERO, ones)
    sample = calibration.sample
    limit = max(_AS_GOOD * activation_error(careful, sample, weights), _GOOD_ENOUGH)
    for quantizer in cheaper:
        if activation_error(quantizer, sample, weights) <= limit:
            return quantizer
    return careful
