"""How vectors are given: how many of their values, and as which numbers.

::

    float32 [dimensions] ──cut──> the first values ──quantized──> float32 | int8 | uint8 | bits

The arithmetic is that of sentence-transformers' `quantize_embeddings`; what is given for a vector
depends on that vector alone, never on the others of its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from bertd.bundle.arrays import Float32Array
from numpy.typing import NDArray

from bertd_server.errors import InvalidInput

VectorDtype = Literal["float32", "int8", "uint8", "binary", "ubinary"]
Vector = NDArray[Any]
"""Of float32, int8 or uint8, `[values]`."""

DTYPES: tuple[VectorDtype, ...] = get_args(VectorDtype)
RANGED = ("int8", "uint8")
"""They need ranges."""

_STEPS = 255
_HALF = 128  # what turns an unsigned byte into a signed one of the same order


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """What a caller wants of each vector.

    Attributes:
        dimensions: its first values, 1 to as many as the model gives; None for all.
        dtype: as which numbers.
        low: of int8 and uint8, the smallest value: one for all dimensions, or one for each.
        high: the largest, likewise.
    """

    dimensions: int | None = None
    dtype: VectorDtype = "float32"
    low: Sequence[float] = ()
    high: Sequence[float] = ()


AS_COMPUTED = VectorFormat()


@dataclass(frozen=True, slots=True)
class VectorFormatter:
    """A :class:`VectorFormat` that has been checked against a model.

    Attributes:
        dimensions: of what is given, before bits are packed into bytes.
        dtype: as which numbers.
        ranges: float32 `[2, 1]` or `[2, dimensions]`, lowest and highest; None if not needed.
        normalize: whether what has been cut is made of length one again.
        bytes: of a vector as it is given.
    """

    dimensions: int
    dtype: VectorDtype
    ranges: Float32Array | None
    normalize: bool
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        none = self.empty()
        object.__setattr__(self, "bytes", none.itemsize * int(none.shape[1]))

    @classmethod
    def of(cls, form: VectorFormat, most: int, *, normalize: bool) -> VectorFormatter:
        """Check a format.

        Args:
            form: what the caller wants.
            most: values that the model gives.
            normalize: whether the model's own vectors are of length one.

        Raises:
            InvalidInput: the model cannot give that; the message says what it can.
        """
        if form is AS_COMPUTED:
            return _as_computed(most, normalize)
        check_dimensions(form.dimensions, most)
        dimensions = most if form.dimensions is None else form.dimensions
        if form.dtype not in DTYPES:
            raise InvalidInput(
                f"output_dtype is {form.dtype!r}: use one of {', '.join(DTYPES)}",
                field="output_dtype",
                reason="unknown_value",
            )
        return cls(dimensions, form.dtype, _ranges(form, dimensions), normalize)

    def __call__(self, vector: Float32Array) -> Vector:
        """What is given for a vector, float32 `[dimensions of the model]`."""
        vector = cut(vector, self.dimensions, normalize=self.normalize)
        return quantized(vector, self.dtype, self.ranges)

    def empty(self) -> Vector:
        """No vectors, `[0, values]`, of the right kind."""
        none = np.empty((0, self.dimensions), np.float32)
        return quantized(none, self.dtype, self.ranges)


@lru_cache(maxsize=64)  # a model has one
def _as_computed(dimensions: int, normalize: bool) -> VectorFormatter:
    return VectorFormatter(dimensions, AS_COMPUTED.dtype, None, normalize)


def check_dimensions(dimensions: int | None, most: int) -> None:
    """Check how many values a caller wants of the `most` that a model gives; None is all.

    Raises:
        InvalidInput: they are none, or more.
    """
    if dimensions is not None and not 1 <= dimensions <= most:
        raise InvalidInput(
            f"dimensions is {dimensions}: ask for 1 to {most}, or leave it out",
            field="dimensions",
            reason="out_of_range",
            limit=most,
        )


def cut(vector: Float32Array, dimensions: int, *, normalize: bool) -> Float32Array:
    """The first values of a vector; of length one again, if so many are not all and it shall be."""
    if dimensions >= len(vector):
        return vector
    return of_length_one(vector[:dimensions]) if normalize else vector[:dimensions]


def of_length_one(vector: Float32Array) -> Float32Array:
    """A vector scaled as TEI's server does: the length in float64; zero stays zero."""
    length = float(np.sqrt(np.square(vector, dtype=np.float64).sum()))
    return vector * np.float32(1 / length) if length else vector


def quantized(
    vectors: Float32Array, dtype: VectorDtype, ranges: Float32Array | None = None
) -> Vector:
    """Vectors as other numbers, as sentence-transformers' `quantize_embeddings`.

    Args:
        vectors: float32 `[…, dimensions]`.
        dtype: "uint8" is the step of 255 between lowest and highest in which a value lies, values
            beyond them in the first or the last; "int8" is 128 less. "ubinary" has a bit for each
            value, 1 above 0, the most significant first, zeros after the last; "binary" is 128
            less.
        ranges: of int8 and uint8, float32 `[2, 1]` or `[2, dimensions]`: lowest and highest.

    Returns:
        float32, int8 or uint8 `[…, dimensions]`; of bits int8 or uint8 `[…, dimensions / 8]`,
        rounded up.
    """
    if dtype == "float32":
        return vectors
    if dtype in ("binary", "ubinary"):
        found = np.packbits(vectors > 0, axis=-1)
    else:
        if ranges is None:
            raise ValueError(f"{dtype} needs ranges")
        low, high = ranges
        with np.errstate(over="ignore"):  # far beyond a narrow range: clipped
            steps = (high - low) / _STEPS
            steps = np.where(steps == 0, np.float32(1), steps)
            found = np.clip(np.floor((vectors - low) / steps), 0, _STEPS).astype(np.uint8)
    return found if dtype in ("uint8", "ubinary") else (found ^ _HALF).view(np.int8)


def _ranges(form: VectorFormat, dimensions: int) -> Float32Array | None:
    if form.dtype not in RANGED:
        if len(form.low) or len(form.high):
            raise InvalidInput(
                f"ranges go with output_dtype int8 or uint8, and it is {form.dtype}: leave them "
                "out",
                field="ranges",
            )
        return None
    counts = len(form.low), len(form.high)
    if counts == (0, 0):
        raise InvalidInput(
            f"ranges is missing, and {form.dtype} is counted in 255 steps from the lowest to the "
            "highest value: send both, for all dimensions or for each, as they are among float32 "
            "vectors of texts of your own; binary needs none",
            field="ranges",
        )
    if counts[0] != counts[1] or counts[0] not in (1, dimensions):
        raise InvalidInput(
            f"ranges has {counts[0]} lowest and {counts[1]} highest values: send one of each for "
            f"all dimensions, or {dimensions}, one for each dimension that is given",
            field="ranges",
        )
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        ranges = np.array([form.low, form.high], np.float64).astype(np.float32)
        widths = ranges[1] - ranges[0]
    wrong = np.flatnonzero(~(np.isfinite(widths) & (widths >= 0)))
    if wrong.size:
        place = int(wrong[0])
        raise InvalidInput(
            f"ranges goes from {form.low[place]} to {form.high[place]} at {place}: send finite "
            "numbers, the lowest first",
            field="ranges",
        )
    return ranges
