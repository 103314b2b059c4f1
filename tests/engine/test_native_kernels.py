"""Kernels of bertd-native: what plain numpy gives, and the same bits however work is split."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle import GRAPH_NAME, graphs, read_manifest
from bertd.bundle.arrays import Float32Array
from bertd.bundle.kernels import KernelChoice, find
from bertd_export.bundle import export_model
from bertd_export.verification.verify import verify
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.prepacking import prepacked
from bertd_server.errors import MisusedError
from helpers import native_ops
from helpers.engines import engine, entries, texts
from helpers.native_ops import bounds, run, session
from helpers.tiny import save_tiny
from hypothesis import given, settings
from hypothesis import strategies as st

bertd_native = pytest.importorskip("bertd_native", reason="bertd-native is not installed")

LONG = [1, 5, 200, 530, 1100]  # beyond a block of keys, and beyond one of queries
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)
HEADS = st.sampled_from([(1, 1), (1, 20), (2, 7), (3, 8), (2, 16), (2, 33), (12, 32), (1, 64)])


INT8 = {"Int8Linear": ("x",)}  # functions of a graph
on_each_isa = pytest.mark.parametrize("isa", bertd_native.available())
needs_bf16 = pytest.mark.skipif(
    bertd_native.attention(INT8) != "bf16", reason="this CPU has no tiles of bf16"
)


def normal(seed: int, *shape: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(got: Float32Array, want: Float32Array) -> None:
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def near(got: Float32Array, want: Float32Array) -> None:
    """As far as products of bf16 go, which has 8 bits: of values about 1."""
    np.testing.assert_allclose(got, want, atol=0.04)
    assert np.abs(got - want).mean() < 0.004


def attended(  # noqa: PLR0913 - what one run is of
    isa: str,
    name: str,
    lengths: Sequence[int],
    shape: tuple[int, int],
    *,
    threads: int = 1,
    window: int | None = None,
    attention: str = "fp32",
) -> tuple[Float32Array, Float32Array]:
    """Attention of an operator over a batch, after it was found equal to that of each alone.

    Args:
        isa: the instruction set.
        name: of the operator.
        lengths: of the batch's sequences.
        shape: heads, and columns of one.
        threads: of the batch's run; each alone has one.
        window: of local attention.
        attention: precision of products.

    Returns:
        It, and what it should be.
    """
    heads, size = shape
    width, cu = heads * size, bounds(lengths)
    q, k, v = (normal(seed, int(cu[-1]), width) for seed in (1, 2, 3))
    if name == "PackedFirstAttention":
        q = q[cu[:-1]]
    inputs = {"q": q, "k": k, "v": v, "cu_seqlens": cu}
    scale = float(np.float32(size**-0.5))
    more: dict[str, Any] = {"attention": attention}
    if window is not None:
        more["window"] = window
    distances = None
    if name == "PackedBiasedAttention":
        distances = normal(4, heads, 2 * max(lengths) + 5)
        more["constants"] = {"distances": distances}
    one = session(name, inputs, isa, 1, num_heads=heads, scale=scale, **more)
    many = session(name, inputs, isa, threads, num_heads=heads, scale=scale, **more)
    got, expected = run(many, inputs), np.empty_like(q)
    for s, (a, b) in enumerate(itertools.pairwise(cu)):
        rows = slice(s, s + 1) if name == "PackedFirstAttention" else slice(a, b)
        alone = {"q": q[rows], "k": k[a:b], "v": v[a:b], "cu_seqlens": bounds([b - a])}
        np.testing.assert_array_equal(run(one, alone), got[rows])
        parts = (q[rows], k[a:b], v[a:b])
        expected[rows] = native_ops.attention(parts, heads, scale, window, distances)
    return got, expected


@on_each_isa
@pytest.mark.parametrize(
    "name", ["PackedAttention", "PackedFirstAttention", "PackedBiasedAttention"]
)
@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, heads=HEADS)
def test_attention_of_any_shape(
    isa: str, name: str, lengths: list[int], heads: tuple[int, int]
) -> None:
    close(*attended(isa, name, lengths, heads))


@on_each_isa
@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, heads=HEADS, window=st.integers(0, 50))
def test_local_attention_of_any_shape(
    isa: str, lengths: list[int], heads: tuple[int, int], window: int
) -> None:
    close(*attended(isa, "PackedLocalAttention", lengths, heads, window=window))


@on_each_isa
@pytest.mark.parametrize("window", [None, 3, 64, 300])
def test_blocks_and_threads_change_no_bit(isa: str, window: int | None) -> None:
    """Enough work for two threads, of sequences in several blocks."""
    name = "PackedAttention" if window is None else "PackedLocalAttention"
    close(*attended(isa, name, LONG, (4, 32), threads=2, window=window))


@on_each_isa
def test_blocks_and_threads_change_no_bit_of_a_bias(isa: str) -> None:
    close(*attended(isa, "PackedBiasedAttention", LONG, (4, 32), threads=2))


@needs_bf16
@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("PackedAttention", None),
        ("PackedFirstAttention", None),
        ("PackedBiasedAttention", None),
        ("PackedLocalAttention", 0),
        ("PackedLocalAttention", 64),
        ("PackedLocalAttention", 300),
    ],
)
@pytest.mark.parametrize("heads", [(1, 1), (3, 20), (4, 32), (2, 64), (1, 100)])
def test_attention_in_bf16(name: str, window: int | None, heads: tuple[int, int]) -> None:
    """Around every border of a tile, and beyond a block of keys and one of queries."""
    lengths = [1, 2, 15, 16, 17, 31, 32, 33, 49, *LONG]
    found = attended(
        bertd_native.AUTO, name, lengths, heads, threads=2, window=window, attention="bf16"
    )
    near(*found)


@needs_bf16
def test_what_is_no_number_in_bf16() -> None:
    cu, q, k = bounds([20, 40]), normal(1, 60, 8), normal(2, 60, 8)
    k[50, 3] = np.nan
    inputs = {"q": q, "k": k, "v": q, "cu_seqlens": cu}
    options: dict[str, Any] = {"num_heads": 1, "scale": 1.0, "attention": "bf16"}
    got = run(session("PackedAttention", inputs, bertd_native.AUTO, **options), inputs)
    assert np.isfinite(got[:20]).all()
    assert np.isnan(got[20:]).all()


def test_attention_in_bf16_is_for_int8_layers_and_cpus_that_have_it() -> None:
    assert bertd_native.attention({"PackedAttention": ("qkv",)}) == "fp32"
    assert bertd_native.attention(INT8, "portable") == "fp32"
    inputs = {"x": normal(1, 5, 4), "cu_seqlens": bounds([5])}
    with pytest.raises(Exception, match="attention bf16 does not run here with portable"):
        session("PackedMean", inputs, "portable", attention="bf16")
    with pytest.raises(Exception, match="attention is fp8, and must be fp32 or bf16"):
        session("PackedMean", inputs, "portable", attention="fp8")


@on_each_isa
def test_a_bias_with_merged_inputs_and_its_limits(isa: str) -> None:
    cu, distances = bounds([3, 9, 30]), normal(4, 3, 59)
    parts = [normal(seed, 42, 48) for seed in (1, 2, 3)]
    merged = {"qkv": np.concatenate(parts, axis=1), "cu_seqlens": cu}

    def biased(inputs: dict[str, Any], table: Float32Array) -> Any:
        held = {"distances": table}
        options: dict[str, Any] = {"num_heads": 3, "scale": 0.25}
        return session("PackedBiasedAttention", inputs, isa, constants=held, **options)

    separate = {**dict(zip("qkv", parts, strict=True)), "cu_seqlens": cu}
    one = biased(merged, distances)
    np.testing.assert_array_equal(run(one, merged), run(biased(separate, distances), separate))
    longer = {**merged, "cu_seqlens": bounds([11, 31])}
    with pytest.raises(Exception, match="a sequence of 31 tokens, distances are known for 30"):
        run(one, longer)
    with pytest.raises(Exception, match="distances must be a constant"):
        biased(merged, distances[:, 1:])


@on_each_isa
def test_merged_and_separate_inputs_give_the_same_bits(isa: str) -> None:
    cu = bounds([3, 9, 30])
    q, k, v = (normal(seed, 42, 48) for seed in (1, 2, 3))
    separate = {"q": q, "k": k, "v": v, "cu_seqlens": cu}
    merged = {"qkv": np.concatenate([q, k, v], axis=1), "cu_seqlens": cu}
    both = [
        run(session("PackedAttention", inputs, isa, num_heads=3, scale=0.25), inputs)
        for inputs in (separate, merged)
    ]
    np.testing.assert_array_equal(both[0], both[1])


@on_each_isa
def test_large_scores_and_what_is_no_number(isa: str) -> None:
    """Weights of e^-100 vanish; what is not a number makes its own sequence so, and no other."""
    cu = bounds([4, 6])
    q, k, v = normal(1, 10, 8) * 30, normal(2, 10, 8) * 30, normal(3, 10, 8)
    inputs = {"q": q, "k": k, "v": v, "cu_seqlens": cu}
    one = session("PackedAttention", inputs, isa, num_heads=1, scale=1.0)
    close(run(one, inputs)[:4], native_ops.attention((q[:4], k[:4], v[:4]), 1, 1.0))
    k[5, 3] = np.nan
    got = run(one, inputs)
    assert np.isfinite(got[:4]).all()
    assert np.isnan(got[4:]).all()


@on_each_isa
@pytest.mark.parametrize("name", ["PackedMean", "PackedMax", "PackedWeightedMean"])
@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, width=st.integers(1, 40))
def test_pooling_of_any_shape(isa: str, name: str, lengths: list[int], width: int) -> None:
    cu = bounds(lengths)
    x = normal(1, int(cu[-1]), width)
    inputs = {"x": x, "cu_seqlens": cu}
    one = session(name, inputs, isa)
    got = run(one, inputs)
    for s, (a, b) in enumerate(itertools.pairwise(cu)):
        weights = np.arange(1, b - a + 1) if name == "PackedWeightedMean" else None
        rows = x[a:b].astype(float)
        want = rows.max(axis=0) if name == "PackedMax" else np.average(rows, 0, weights)
        close(got[s], want.astype(np.float32))
        alone = {"x": x[a:b], "cu_seqlens": bounds([b - a])}
        np.testing.assert_array_equal(run(one, alone)[0], got[s])


@on_each_isa
@pytest.mark.parametrize("cu", [[0, 3], [1, 5], [0, 5, 3, 5], [0]])
def test_bounds_that_do_not_fit_are_refused(isa: str, cu: list[int]) -> None:
    inputs = {"x": normal(1, 5, 4), "cu_seqlens": np.array(cu, np.int64)}
    with pytest.raises(Exception, match="bertd::PackedMean: cu_seqlens must"):
        run(session("PackedMean", inputs, isa), inputs)


@on_each_isa
def test_shapes_that_do_not_fit_are_refused(isa: str) -> None:
    q, cu = normal(1, 5, 8), bounds([5])
    inputs = {"q": q, "k": q, "v": q, "cu_seqlens": cu}
    with pytest.raises(Exception, match="a multiple of 3 heads"):
        run(session("PackedAttention", inputs, isa, num_heads=3, scale=1.0), inputs)
    with pytest.raises(Exception, match="num_heads must be at least 1"):
        session("PackedAttention", inputs, isa, num_heads=0, scale=1.0)


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    assert bertd_native.instruction_set("avx1024") is None
    inputs = {"x": normal(1, 5, 4), "cu_seqlens": bounds([5])}
    with pytest.raises(Exception, match=r"bertd\.native\.isa avx1024 does not run here"):
        session("PackedMean", inputs, "avx1024")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    export_model(str(save_tiny(folder / "checkpoint", "bert")), folder / "bundle")
    return folder / "bundle"


def test_kernels_take_the_place_of_functions_in_an_unchanged_bundle(
    small: Path, tmp_path: Path
) -> None:
    """ONNX Runtime looks for a registered operator first, and for a function of that name then:
    nowhere promised, and what everything here rests on."""
    kernels = find(small / GRAPH_NAME)
    assert kernels is not None
    assert {"PackedAttention", "PackedMean", "Fp32Linear"} <= set(kernels.operators)
    assert graphs.functions(small / GRAPH_NAME).keys() == set(kernels.operators)
    lengths = [7, 1, 12, 30, 3]
    native = engine(small, EngineOptions(threads=2, cache=tmp_path, kernels="native"))
    stock = engine(small, EngineOptions(threads=2, cache=tmp_path, kernels="stock"))
    assert native.kernels == kernels
    assert stock.kernels is None
    assert len(entries(tmp_path / "prepacked")) == 2  # files are of the kernels that wrote them
    with prepacked(small, read_manifest(small), tmp_path, kernels=kernels) as graph:
        written = graph.read_bytes()
    assert b"PackedAttention" in written
    assert b"MultiHeadAttention" not in written
    got = native.embed(texts(lengths))
    np.testing.assert_allclose(got, stock.embed(texts(lengths)), rtol=1e-5, atol=1e-6)
    for place, alone in enumerate(texts(lengths)):
        for wide in (False, True):
            np.testing.assert_array_equal(native.embed([alone], wide=wide)[0], got[place])


@pytest.mark.slow
def test_a_family_with_a_position_bias(tmp_path: Path) -> None:
    """The export compares native answers with PyTorch; stock ones must agree with those."""
    export_model(str(save_tiny(tmp_path / "checkpoint", "mpnet")), tmp_path / "bundle")
    native = engine(tmp_path / "bundle", EngineOptions(kernels="native"))
    stock = engine(tmp_path / "bundle", EngineOptions(kernels="stock"))
    assert native.kernels is not None
    assert "PackedBiasedAttention" in native.kernels.operators
    batch = texts([7, 1, 140, 30, 3])
    got = native.embed(batch)
    np.testing.assert_allclose(got, stock.embed(batch), rtol=1e-5, atol=1e-6)
    for place, alone in enumerate(batch):
        np.testing.assert_array_equal(native.embed([alone])[0], got[place])


@pytest.mark.parametrize("kernels", ["stock", "native"])
def test_the_tolerances_of_a_bundle_hold_for_both(small: Path, kernels: KernelChoice) -> None:
    """The export has compared by native ones."""
    assert "bertd-native" in read_manifest(small).versions
    found = verify(small, str(small.parent / "checkpoint"), kernels=kernels)
    assert not found.failures


def test_a_function_with_other_inputs_keeps_its_body() -> None:
    taken = bertd_native.fitting(
        {
            "PackedMean": ("x", "cu_seqlens"),
            "PackedMax": ("rows", "cu_seqlens"),
            "PackedAttention": ("q", "k", "v", "mask"),
            "PackedAttentionHalf": ("qkv", "cu_seqlens"),
            "PackedBiasedAttention": ("qkv", "cu_seqlens", "buckets", "c2p", "p2c"),
        }
    )
    assert taken == ("PackedMean",)


def test_native_alone_is_refused_where_it_cannot_be(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(small)
    with pytest.raises(MisusedError, match="provider is cuda: leave kernels at auto"):
        Engine(small, manifest, EngineOptions(provider="cuda", kernels="native"))
    monkeypatch.setattr(bertd_native, "fitting", lambda *_: ())
    assert engine(small).kernels is None
    with pytest.raises(MisusedError, match="no function that they know"):
        engine(small, EngineOptions(kernels="native"))
