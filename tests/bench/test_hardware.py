"""A machine's card: made of a tiny model here, refused clearly where it cannot be made."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from bertd_bench.cli import bench
from bertd_bench.hardware import (
    cores,
    document,
    memory,
    products,
    roofline,
    ways,
)
from bertd_bench.hardware.card import Card
from bertd_bench.hardware.kernels import Meter
from bertd_bench.hardware.products import LinearShape
from bertd_bench.harness.results import read
from bertd_bench.harness.rounds import Schedule
from click.testing import CliRunner
from helpers.paths import ROOT

QUICK = Schedule(2, repeats=2, pause_seconds=0)


@pytest.fixture(scope="module")
def found(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A card of this machine, as quick as it can be made, which is most of a minute."""
    path = tmp_path_factory.mktemp("card") / "hardware.json"
    quick = ["--rounds", "2", "--turn-seconds", "0.01", "--memory-mib", "1"]
    arguments = [str(tiny_bundle), *quick, "--price-per-hour", "0.5", "--json", str(path)]
    result = CliRunner().invoke(bench, ["hardware", *arguments, "--accept-noise"])
    assert result.exit_code == 0, result.output
    return read(path, Card, "hardware")


@pytest.mark.slow
def test_a_card_has_every_part(found: Card) -> None:
    """Every shape, number of tokens and threads; every sample; and what follows from them."""
    [model] = found.models
    counts = Meter("cpu", found.cores.threads, QUICK).counts
    assert len(found.products) == len(model.linears) * len(roofline.TOKENS) * len(counts)
    assert {(each.way, each.threads) for each in found.bandwidth} == {
        (way, count) for way in ("read", "copy") for count in counts
    }
    assert all(len(each.measured.rounds_ns) == 2 for each in found.products)
    roof = found.roof("fp32")
    assert roof is not None
    assert roof.peak == max(each.rate for each in found.products)
    assert found.roof("int8") is None
    for point in model.points:
        assert sum(point.lengths) == point.tokens
        assert point.efficiency is not None
        assert roof.attainable(point.intensity) <= roof.peak
    arranged = ways.layouts(found.cores.threads)
    assert len(model.ways) == len(arranged) * len(ways.TEXTS)
    assert model.best.rate == max(way.rate for way in model.ways)
    cost = found.cost_per_million(model.best)
    assert cost == pytest.approx(0.5 * 1e6 / (model.best.rate * 3600))
    assert found.command.startswith("bertd ")


@pytest.mark.slow
def test_shapes_come_from_the_graph(tiny_bundle: Path, found: Card) -> None:
    """Merged QKV, output, and the two of the feed-forward net, in as many layers."""
    linears = products.shapes_of(tiny_bundle)
    assert linears == found.models[0].linears
    hidden = linears[0].rows
    assert linears[0].columns == 3 * hidden
    assert sum(linear.count for linear in linears) == 4 * linears[0].count
    assert LinearShape(rows=3, columns=5, count=2).operations(7) == 2 * 7 * 3 * 5 * 2


def test_the_cache_is_read_from_linux(tmp_path: Path) -> None:
    """The last level counts; whoever does not say leaves it open."""
    for index, (level, size) in enumerate((("1", "32K"), ("3", "24M"), ("2", "1M"))):
        folder = tmp_path / f"cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert cores.cache_bytes(0, tmp_path) == 24 << 20
    assert cores.cache_bytes(1, tmp_path) is None
    assert memory.size(24 << 20) == 96 << 20


def test_a_roof_is_memory_below_the_ridge_and_arithmetic_above() -> None:
    roof = roofline.Roof(peak=300, bandwidth=20)
    assert roof.ridge == 15
    assert roof.attainable(5) == 100
    assert roof.attainable(50) == 300
    one = [LinearShape(rows=10, columns=20, count=3)]
    assert roofline.bytes_moved(one, 7, int8=False) == 3 * (800 + 7 * 4 * 30)
    assert roofline.bytes_moved(one, 7, int8=True) == 3 * (200 + 7 * (10 + 80))
    assert roofline.lengths_of(512, 64) == [64] * 8


def test_layouts_fill_the_machine() -> None:
    assert ways.layouts(1) == [(1, 1)]
    assert ways.layouts(2) == [(1, 1), (2, 1), (1, 2)]
    assert ways.layouts(8) == [(1, 1), (8, 1), (1, 8), (2, 4), (4, 2)]


def test_int8_products_are_those_of_the_cpu() -> None:
    """u8 by s8, timed like float32; a device is refused, since the work would fall back."""
    linear = LinearShape(rows=16, columns=8, count=2)
    [cell] = products.measure("int8", [linear], [4], Meter("cpu", 1, QUICK))
    assert cell.rate > 0
    with pytest.raises(products.CannotMultiplyError, match="not with cuda"):
        products.open_session("int8", linear, 1, "cuda")


def test_memory_of_a_device_is_measured_by_its_kernels() -> None:
    """Those of the CPU here; a copied byte counts twice."""
    found = memory.measure_device(1 << 12, Meter("cpu", 1, QUICK))
    assert {each.way: each.bytes_moved for each in found} == {"read": 1 << 12, "copy": 1 << 13}
    assert all(each.rate > 0 for each in found)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="there is a GPU"
)
def test_without_a_gpu_cuda_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """Before anything is measured, with what there is and what to do."""
    target = tmp_path / "card.json"
    arguments = ["hardware", str(tiny_bundle), "--provider", "cuda", "--json", str(target)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 1
    assert "which has cpu" in result.output
    assert "install onnxruntime-gpu" in result.output
    assert not target.exists()


def test_a_card_is_told_from_other_results() -> None:
    with pytest.raises(ValueError, match="not a result of `bertd bench hardware`"):
        read(ROOT / "benchmarks/results/compare.json", Card, "hardware")


@pytest.mark.slow
def test_a_card_becomes_tables(found: Card) -> None:
    text = document.render(found, "card.json")
    assert "| sequences/s | tokens/s | cost of a million texts at 0.5 an hour |" in text
    assert "[`card.json`](card.json)" in text
