"""Kernels of fp32 linear layers against the stock operators whose place they take."""

from __future__ import annotations

import numpy as np
import pytest
from bertd_export.graph.linear_functions import write_linear_functions
from onnx import helper, numpy_helper

native = pytest.importorskip("bertd_native", reason="needs the package of server/native")

from helpers.fp32_layers import FOLLOWS, Layer, called, feeds, plain, session  # noqa: E402


@pytest.mark.parametrize("follow", FOLLOWS)
def test_a_function_is_computed_as_the_nodes_before(follow: str) -> None:
    layer = Layer(follow)
    feed = feeds(layer, 11, 0)
    [expected] = session(plain(layer)).run(None, feed)
    [got] = session(called(layer)).run(None, feed)
    assert np.abs(expected - got).max() < 1e-5


@pytest.mark.parametrize("isa", native.available())
def test_each_function_is_computed_as_by_stock_operators(isa: str) -> None:
    names = {name for name in native.operators(isa) if name.startswith("Fp32")}
    assert names == {Layer(follow).name for follow in FOLLOWS}
    random = np.random.default_rng(1)
    for number in range(40):
        layer = Layer(
            FOLLOWS[number % len(FOLLOWS)],
            inputs=int(random.integers(1, 150)),
            outputs=32 * int(random.integers(1, 7)),
        )
        model, feed = called(layer, number), feeds(layer, int(random.integers(1, 170)), number)
        [expected] = session(model).run(None, feed)
        for threads in (1, 2):
            [got] = session(model, isa, threads).run(None, feed)
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() < 1e-5


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("follow", FOLLOWS)
def test_a_rows_bits_depend_on_the_row_alone(isa: str, follow: str) -> None:
    """In any batch, on one and on two threads, whether rows or columns are split among them."""
    layer = Layer(follow, inputs=333, outputs=1024)
    model, whole = called(layer), feeds(layer, 151, 1)
    runs = [session(model, isa, threads) for threads in (1, 2)]
    [expected] = runs[0].run(None, whole)
    for first, end in ((0, 151), (0, 1), (5, 6), (1, 9), (3, 16), (3, 40), (148, 151), (17, 114)):
        part = {name: values[first:end] for name, values in whole.items()}
        for run in runs:
            [got] = run.run(None, part)
            assert np.array_equal(expected[first:end], got)


@pytest.mark.parametrize("isa", native.available())
@pytest.mark.parametrize("follow", ["Gelu", "GeluTanh"])
def test_gelu_of_every_size(isa: str, follow: str) -> None:
    layer = Layer(follow, inputs=1, outputs=32)
    model = called(layer)
    for tensor in model.graph.initializer:
        value = np.full(tuple(tensor.dims), float(tensor.name == "weight"), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    sizes = np.geomspace(1e-30, 1e30, 4001)
    x = np.concatenate([-sizes, sizes, np.linspace(-8, 8, 4001), [np.inf]]).astype(np.float32)
    [expected] = session(model).run(None, {"x": x[:, None]})
    [got] = session(model, isa).run(None, {"x": x[:, None]})
    assert np.isposinf(got[-1]).all()
    x, got, expected = x[:-1], got[:-1], expected[:-1]
    assert (np.abs(got - expected) / np.maximum(1, np.abs(expected))).max() < 1e-6
    tiny = np.abs(x) < 1e-3
    assert np.allclose(got[tiny], expected[tiny], rtol=1e-5, atol=0)
    [nothing] = session(model, isa).run(None, {"x": np.full((1, 1), np.nan, np.float32)})
    assert np.isnan(nothing).all()


@pytest.mark.parametrize("isa", native.available())
def test_no_rows(isa: str) -> None:
    for follow in FOLLOWS:
        layer = Layer(follow)
        [got] = session(called(layer), isa).run(None, feeds(layer, 0, 0))
        assert got.shape == (0, layer.outputs)


@pytest.mark.parametrize("isa", native.available())
def test_rows_that_do_not_fit_are_an_error(isa: str) -> None:
    layer = Layer("Norm")
    feed = feeds(layer, 3, 0)
    run = session(called(layer), isa)
    with pytest.raises(Exception, match="x must have rows of 37"):
        run.run(None, {**feed, "x": feed["stream"]})
    with pytest.raises(Exception, match="stream must have x's rows"):
        run.run(None, {**feed, "stream": feed["stream"][:2]})


def test_weights_without_panels_keep_their_nodes() -> None:
    model = plain(Layer(outputs=40))
    before = model.SerializeToString()
    write_linear_functions(model)
    assert model.SerializeToString() == before
    shared = plain(Layer())
    shared.graph.node.append(helper.make_node("Transpose", ["weight"], ["other"]))
    shared.graph.output.append(helper.make_empty_tensor_value_info("other"))
    write_linear_functions(shared)
    assert [node.op_type for node in shared.graph.node] == ["MatMul", "Add", "Transpose"]


def test_products_of_one_weight_share_its_panels() -> None:
    model = plain(Layer(inputs=96, outputs=96))
    model.graph.node.append(helper.make_node("MatMul", ["y", "weight"], ["product_2"]))
    model.graph.node.append(helper.make_node("Add", ["product_2", "bias"], ["z"]))
    model.graph.output[0].name = "z"
    write_linear_functions(model)
    assert [node.op_type for node in model.graph.node] == ["Fp32Linear", "Fp32Linear"]
    assert {one.name: list(one.dims) for one in model.graph.initializer} == {
        "weight": [3, 96, 32],
        "bias": [96],
    }
