"""How vectors are given: the numbers that sentence-transformers documents, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from bertd_server.errors import InvalidInput
from bertd_server.tasks.vectors import (
    VectorDtype,
    VectorFormat,
    VectorFormatter,
    cut,
    of_length_one,
    quantized,
)

VALUES = np.array([-2, -1, 0, 0.5, 1, 3], np.float32)
SIGNS = np.array([0, -0.0, 1, -1, np.nan, 0, 0, 0, 1], np.float32)
UNIT = np.array([3 / 13, 4 / 13, 12 / 13], np.float32)
RANGE = np.array([[-1], [1]], np.float32)


@pytest.mark.parametrize(
    ("dtype", "vector", "expected"),
    [
        ("float32", VALUES, [-2, -1, 0, 0.5, 1, 3]),
        ("int8", VALUES, [-128, -128, -1, 63, 126, 127]),
        ("uint8", VALUES, [0, 0, 127, 191, 254, 255]),
        ("binary", SIGNS, [32 - 128, 128 - 128]),
        ("ubinary", SIGNS, [32, 128]),
    ],
)
def test_values_become_other_numbers(
    dtype: VectorDtype, vector: np.ndarray, expected: list[float]
) -> None:
    """The first value of a byte is its most significant bit; 0, -0 and NaN are not above 0."""
    with np.errstate(invalid="raise"):
        found = quantized(vector, dtype, RANGE)
    assert found.tolist() == expected
    assert found.dtype == {"float32": "f4", "int8": "i1", "binary": "i1"}.get(dtype, "u1")


def test_a_dimension_that_never_varies_is_its_lowest_step() -> None:
    ranges = np.array([[0.5, 0], [0.5, 1]], np.float32)
    assert quantized(np.array([[0.5, 2]], np.float32), "int8", ranges).tolist() == [[-128, 127]]


def test_a_narrow_range_is_no_overflow() -> None:
    ranges = np.array([[0], [1e-38]], np.float32)
    assert quantized(np.array([3, -3], np.float32), "uint8", ranges).tolist() == [255, 0]


def test_what_is_cut_is_of_length_one_again_if_it_shall_be() -> None:
    assert cut(UNIT, 3, normalize=True) is UNIT
    np.testing.assert_array_equal(cut(UNIT, 2, normalize=False), UNIT[:2])
    np.testing.assert_allclose(cut(UNIT, 2, normalize=True), [0.6, 0.8], rtol=1e-6)
    nothing = np.zeros(2, np.float32)
    assert of_length_one(nothing) is nothing


def test_it_is_cut_first_and_then_quantised() -> None:
    form = VectorFormat(2, "int8", [0], [1.01])
    assert VectorFormatter.of(form, 3, normalize=True)(UNIT).tolist() == [151 - 128, 201 - 128]
    packed = VectorFormatter.of(VectorFormat(9, "binary"), 12, normalize=False)
    assert packed.empty().shape == (0, 2)


@pytest.mark.parametrize(
    ("form", "field", "words"),
    [
        (VectorFormat(0), "dimensions", "dimensions is 0: ask for 1 to 8"),
        (VectorFormat(9), "dimensions", "dimensions is 9: ask for 1 to 8"),
        (VectorFormat(None, "int8"), "ranges", "ranges is missing"),
        (VectorFormat(None, "uint8", [], [1]), "ranges", "0 lowest and 1 highest"),
        (VectorFormat(4, "uint8", [0] * 8, [1] * 8), "ranges", "or 4, one for each"),
        (VectorFormat(None, "int8", [1], [0]), "ranges", "from 1 to 0 at 0"),
        (VectorFormat(None, "int8", [0, 0] * 4, [1, np.nan] * 4), "ranges", "from 0 to nan at 1"),
        (VectorFormat(None, "int8", [-3e38], [3e38]), "ranges", "finite"),
        (VectorFormat(None, "int8", [-1e300], [0]), "ranges", "finite"),
        (VectorFormat(None, "binary", [0], [1]), "ranges", "leave them out"),
        (VectorFormat(None, "int4"), "output_dtype", "use one of float32, int8"),  # type: ignore[arg-type]
    ],
)
def test_what_a_model_cannot_give_is_refused_by_name(
    form: VectorFormat, field: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        VectorFormatter.of(form, 8, normalize=False)
    assert refused.value.field == field
