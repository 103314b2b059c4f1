"""Kernels of int8 linear layers against the stock operators whose place they take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

native = pytest.importorskip("bertd_native", reason="needs the package of server/native")

from helpers.int8_layers import (  # noqa: E402 - it needs the package
    WEIGHT_LEVELS,
    Layer,
    called,
    feeds,
    session,
)


def every_layer() -> Iterator[Layer]:
    """Every name that the library has."""
    for given, biased in product(("", "Static", "Row", "GeluRow"), (True, False)):
        one = partial(Layer, given=given, biased=biased)
        yield one()
        yield one(follow="Gelu")
        yield one(follow="GeluTanh")
        for shifted in (True, False):
            yield one(follow="Norm", shifted=shifted)
            for follow, smooth in product(("Norm", "Stream"), (True, False)):
                yield one(follow=follow, shifted=shifted, smooth=smooth, levels=True)


def agree(expected: list[Any], got: list[Any]) -> None:
    for one, other in zip(expected, got, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype == np.uint8:  # a number between two levels may go to either
            assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
            assert (one != other).mean() < 0.03
        else:
            assert np.abs(one - other).max() < 2e-3 * max(1, np.abs(one).max())
            assert np.median(np.abs(one - other)) < 1e-5


@pytest.mark.parametrize("isa", native.available())
def test_each_function_is_computed_as_by_stock_operators(isa: str) -> None:
    layers = list(every_layer())
    assert {layer.name for layer in layers} == {
        name for name in native.operators(isa) if name.startswith("Int8")
    }
    for number, layer in enumerate(layers):
        model, feed = called(layer, number), feeds(layer, 11, number)
        agree(session(model).run(None, feed), session(model, isa).run(None, feed))


@pytest.mark.parametrize("isa", native.available())
def test_odd_shapes(isa: str) -> None:
    random = np.random.default_rng(3)
    layers = list(every_layer())
    for number in range(30):
        chosen = layers[random.integers(len(layers))]
        sizes = {"inputs": int(random.integers(1, 150)), "outputs": int(random.integers(2, 150))}
        layer = Layer(**{**vars(chosen), **sizes})
        model, feed = called(layer, number), feeds(layer, int(random.integers(1, 70)), number)
        expected = session(model).run(None, feed)
        for threads in (1, 2):
            agree(expected, session(model, isa, threads).run(None, feed))


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize(
    "layer",
    [
        Layer(follow="Norm", smooth=True, levels=True, inputs=200, outputs=500),
        Layer(given="Row", follow="Stream", levels=True, inputs=202, outputs=512),
        Layer(given="Static", follow="Gelu", inputs=128, outputs=1030),
        Layer(given="GeluRow", inputs=333, outputs=999),
    ],
    ids=lambda layer: layer.name,
)
def test_a_rows_bits_depend_on_the_row_alone(isa: str, layer: Layer) -> None:
    """In any batch, on one and on two threads, whether rows or columns are split among them."""
    model = called(layer)
    whole = feeds(layer, 131, 1)
    runs = [session(model, isa, threads) for threads in (1, 2)]
    expected = runs[0].run(None, whole)
    for first, end in ((0, 131), (0, 1), (5, 6), (1, 9), (3, 40), (128, 131), (17, 114)):
        part = {name: values[first:end] for name, values in whole.items()}
        for run in runs:
            for one, other in zip(expected, run.run(None, part), strict=True):
                assert np.array_equal(one[first:end], other)


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("most", [20, 32, 40, WEIGHT_LEVELS])
def test_sums_are_exact_whether_or_not_pairs_of_groups_fit_16_bits(isa: str, most: int) -> None:
    """All of them, all just so, most of them, few: as whole numbers say, with the largest rows."""
    layer = Layer(biased=False, inputs=99, outputs=70, most=most)
    model, feed = called(layer), feeds(layer, 9, 0)
    feed["x"][4:] = 255
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    sums = (feed["x"].astype(int) - 117) @ constants["weight"].astype(int)
    scales = constants["x_scale"] * constants["weight_scale"]
    [got] = session(model, isa).run(None, feed)
    assert np.array_equal(got, sums.astype(np.float32) * scales)


@pytest.mark.parametrize("isa", native.available())
def test_what_is_beyond_all_levels_saturates(isa: str) -> None:
    layer = Layer(given="Static", follow="Gelu")
    model, feed = called(layer), feeds(layer, 5, 0)
    feed["x"] *= np.float32(1e12)
    agree(session(model).run(None, feed), session(model, isa).run(None, feed))


def test_no_rows() -> None:
    layer = Layer(follow="Norm", levels=True)
    normed, levels = session(called(layer), "auto").run(None, feeds(layer, 0, 0))
    assert normed.shape == levels.shape == (0, layer.outputs)


def test_weights_of_eight_bits_are_refused() -> None:
    model = called(Layer())
    [weight] = [t for t in model.graph.initializer if t.name == "weight"]
    levels = numpy_helper.to_array(weight).copy()
    levels[0, 0] = 65
    weight.CopyFrom(numpy_helper.from_array(levels, "weight"))
    with pytest.raises(Exception, match="weight must be within -64 and 64"):
        session(model, "auto")


def test_every_function_fits_by_its_inputs() -> None:
    model = called(Layer(follow="Norm"))
    [function] = model.functions
    inputs = tuple(function.input)
    assert native.fitting({function.name: inputs}) == (function.name,)
    assert not native.fitting({function.name: inputs[1:]})
