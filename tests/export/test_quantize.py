"""int8: the rewrite, the search, the gate, and equal bits."""

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from bertd.bundle import GRAPH_NAME, SENTENCE_EMBEDDING, Quantization, read_manifest, verify_files
from bertd.bundle.arrays import Float32Array
from bertd.bundle.kernels import KernelChoice, find
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_export.graph.operators import OPSET
from bertd_export.graph.rewrite import fold_transposes
from bertd_export.graph.runtime import optimized, session
from bertd_export.graph.trace import trace
from bertd_export.parity.agreement import agreement
from bertd_export.parity.packed_batch import feed_of, run_packed
from bertd_export.quantization import int8
from bertd_export.quantization.activations import (
    CalibrationRows,
    Quantizer,
    activation_error,
    choose,
)
from bertd_export.quantization.calibration import for_calibration, read_sample, tokenized
from bertd_export.quantization.gptq import LEVELS, compensation, round_weight
from bertd_export.quantization.int8 import Int8Options
from bertd_export.quantization.int8_exceptions import Candidates
from bertd_export.quantization.int8_functions import INTEGER_PRODUCT, write_functions
from bertd_export.quantization.int8_graph import write_int8
from bertd_export.quantization.linear_layers import find_linears, split_residual_biases
from bertd_export.quantization.rounding import ranges, round_linears
from bertd_export.verification.graph_summary import summarize
from bertd_export.verification.inspection import inspect_bundle, rows
from bertd_export.verification.verify import verify
from click.testing import CliRunner
from helpers.tampering import allow_anything
from helpers.tiny import save_tiny
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(95))]
ROLES = ("qkv", "attention_output", "ffn_up", "ffn_down")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.2,
    )
    model = BertModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(WORDS[5:], n)) for n in generator.integers(1, 60, 48)]
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bundle(tiny: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_model(str(tiny), folder, int8=Int8Options(calibration=texts, min_cosine=0.9))
    return folder


def test_the_bundle_says_what_was_done(bundle: Path, texts: Path) -> None:
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    record = manifest.quantization
    assert record is not None
    assert manifest.precision == "int8"
    assert (record.linear_layers, record.keep_fp32, record.compared_texts) == (12, (), 16)
    assert record.calibration == texts.name
    assert 0.9 <= record.min_cosine <= record.mean_cosine < 1
    assert int8.count_integer_products(bundle / GRAPH_NAME) == 12


def test_an_int8_bundle_can_be_inspected_and_verified(bundle: Path, tiny: Path) -> None:
    shown = dict(rows(inspect_bundle(bundle)))
    assert shown["quantization"].startswith("scheme: 2; linear layers: 12; calibration: texts.txt")
    kernels: tuple[KernelChoice, ...] = ("auto", "stock")  # the tolerances hold for both
    for choice in kernels:
        found = verify(bundle, str(tiny), kernels=choice)
        assert not found.failures
        assert all(parity.max_abs_diff > 0 for parity in found.parity.values())
        assert 0.99 < (found.cosine or 0) < 1


def test_attention_is_in_bf16_where_the_cpu_has_tiles_of_it(bundle: Path) -> None:
    """Of an int8 bundle, by what the exporter and a server ask; the record of kernels says so."""
    native = pytest.importorskip("bertd_native", reason="bertd-native is not installed")
    kernels = find(bundle / GRAPH_NAME)
    assert kernels is not None
    assert kernels.attention == native.attention({"Int8Linear": ()})
    assert ("bf16-attention" in str(kernels)) == (kernels.attention == "bf16")
    assert summarize(bundle / GRAPH_NAME).kernels == str(kernels)


def test_other_weights_are_found_whatever_the_manifest_allows(
    bundle: Path, tiny: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    allow_anything(copy)
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    for name, tensor in weights.items():
        weights[name] = tensor.roll(1, 0)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    [failure] = verify(copy, str(other)).failures
    assert re.fullmatch(r"the mean cosine is -?0\.\d+, less than 0\.989000", failure)
    assert not verify(copy, str(other), min_cosine=-1).failures


def test_every_weight_is_int8_in_seven_bits(bundle: Path) -> None:
    model = onnx.load(str(bundle / GRAPH_NAME))
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.data_type == 3  # INT8
    ]
    assert len(weights) == 12
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == LEVELS
    names = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    assert not names & {tensor.name for tensor in model.graph.initializer}


def test_bits_do_not_depend_on_batch_or_threads(bundle: Path, tiny: Path, texts: Path) -> None:
    checkpoint = load(str(tiny))
    batch = tokenized(checkpoint, read_sample(texts).judge)
    single = int8._one_thread(bundle / GRAPH_NAME)
    many = run_packed(session(bundle / GRAPH_NAME), checkpoint, batch)
    for text, answer in zip(batch, many, strict=True):
        alone_answer = run_packed(single, checkpoint, [text])[0]
        for name, got in answer.items():
            alone = alone_answer[name]
            assert np.array_equal(got, alone)


@pytest.fixture(scope="module")
def graph(tiny: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folded fp32 graph, from which a quantisation starts."""
    path = tmp_path_factory.mktemp("graph") / GRAPH_NAME
    checkpoint = load(str(tiny))
    int8._prepare(trace(checkpoint), path, checkpoint, read_sample(texts))
    return path


@pytest.mark.slow
def test_folding_balances_rows_and_changes_no_answer(
    graph: Path, tiny: Path, texts: Path, tmp_path: Path
) -> None:
    checkpoint = load(str(tiny))
    plain = trace(checkpoint)
    split_residual_biases(plain.graph)
    onnx.save(plain, str(tmp_path / GRAPH_NAME))
    linears = find_linears(plain.graph)
    batch = tokenized(checkpoint, read_sample(texts).calibrate)
    runs = [session(path) for path in (tmp_path / GRAPH_NAME, graph)]
    feed = feed_of(runs[0], checkpoint, batch)
    before, after = (ranges(path, linears, [feed]) for path in (tmp_path / GRAPH_NAME, graph))
    for linear in linears:
        if linear.producer == "Gelu":
            continue
        found = after[linear.source]
        assert np.abs(found.centre).max() < 1e-4
        assert np.abs(before[linear.source].centre).max() > 0.1
    for old, new in zip(*(run_packed(run, checkpoint, batch) for run in runs), strict=True):
        for name, answer in old.items():
            assert np.abs(answer - new[name]).max() < 1e-5


def quantized(graph: Path, tiny: Path, options: Int8Options) -> tuple[Path, Quantization]:
    sample = read_sample(options.calibration)
    return int8._quantize(graph, load(str(tiny)), options, sample, lambda _: None)


def test_layers_kept_in_fp32(graph: Path, tiny: Path, texts: Path, bundle: Path) -> None:
    options = Int8Options(texts, min_cosine=0.9, keep_fp32=("layer.1.*", "*.ffn_down"))
    path, record = quantized(graph, tiny, options)
    whole = read_manifest(bundle).quantization
    assert whole is not None
    expected = {*(f"layer.1.{role}" for role in ROLES), "layer.0.ffn_down", "layer.2.ffn_down"}
    assert set(record.keep_fp32) == expected
    assert int8.count_integer_products(path) == 6
    assert record.mean_cosine > whole.mean_cosine


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("layer.9.*", "matches no linear layer"), ("*", "export with --precision fp32")],
)
def test_a_pattern_that_cannot_be_meant(
    graph: Path, tiny: Path, texts: Path, pattern: str, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        quantized(graph, tiny, Int8Options(texts, keep_fp32=(pattern,)))


@pytest.mark.slow
def test_layers_that_share_weights_share_one_rounding(tmp_path: Path, texts: Path) -> None:
    """ALBERT: two groups of weights, whatever the number of layers."""
    folder = save_tiny(tmp_path / "albert", "albert", num_hidden_layers=4)
    checkpoint = load(str(folder))
    path = tmp_path / GRAPH_NAME
    int8._prepare(trace(checkpoint), path, checkpoint, read_sample(texts))
    written, record = quantized(path, folder, Int8Options(texts, min_cosine=0.9))
    assert not record.keep_fp32
    weights = [t for t in onnx.load(str(written)).graph.initializer if t.data_type == 3]  # INT8
    assert (record.linear_layers, len(weights)) == (32, 8)


@pytest.mark.parametrize("keep", [(), ("layer.0.ffn_up", "layer.1.attention_output")])
def test_functions_change_neither_bits_nor_operators(
    graph: Path, tiny: Path, texts: Path, keep: tuple[str, ...]
) -> None:
    checkpoint = load(str(tiny))
    feeds = int8._feeds(graph, checkpoint, read_sample(texts))
    rounded = round_linears(graph, feeds, lambda _: None)
    chosen = [one for one in rounded if one.linear.name not in keep]
    model = write_int8(onnx.load(str(graph), load_external_data=False), chosen)
    plain, written = (graph.with_name(name) for name in ("plain.onnx", "written.onnx"))
    plain.write_bytes(model.SerializeToString())
    write_functions(model)
    written.write_bytes(model.SerializeToString())
    names = [node.op_type for node in model.graph.node if node.op_type.startswith("Int8")]
    assert len(names) == len(chosen)
    assert {name for name in names if "Gelu" in name or "Norm" in name}
    assert not {node.op_type for node in model.graph.node} & {INTEGER_PRODUCT}
    counts = [Counter(node.op_type for node in optimized(x).graph.node) for x in (plain, written)]
    assert counts[0] == counts[1]
    batch = tokenized(checkpoint, read_sample(texts).judge)
    runs = [session(path, kernels="stock") for path in (plain, written)]
    for old, new in zip(*(run_packed(run, checkpoint, batch) for run in runs), strict=True):
        for name, answer in old.items():
            assert np.array_equal(answer, new[name])


@pytest.mark.parametrize("precise", [pytest.param((), marks=pytest.mark.slow), ("layer.0.ffn_up",)])
def test_a_split_is_the_same_in_any_batch(
    tiny: Path, texts: Path, tmp_path: Path, precise: tuple[str, ...]
) -> None:
    """Rows beyond all that calibration saw saturate; they stay finite, and bits equal."""
    checkpoint = load(str(tiny))
    layer = checkpoint.model.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.bias[3] = 9.0  # far above the other channels
        layer.intermediate.dense.weight[3] *= 20
    path = tmp_path / GRAPH_NAME
    int8._prepare(trace(checkpoint), path, checkpoint, read_sample(texts))
    feeds = int8._feeds(path, checkpoint, read_sample(texts))
    rounded = round_linears(path, feeds, lambda _: None)
    split = next(one for one in rounded if one.linear.name == "layer.0.ffn_down")
    assert split.quantizer.formulation == "split"
    assert 3 in split.quantizer.copies
    chosen = [one for one in rounded if one.linear.name not in precise]
    model = write_int8(onnx.load(str(path), load_external_data=False), chosen)
    candidate = tmp_path / "int8.onnx"
    candidate.write_bytes(model.SerializeToString())
    words = np.random.default_rng(5).integers(5, len(WORDS), (3, 80))
    batch = [
        TokenizedText(row[:n], np.zeros(n, np.int64))
        for row, n in zip(words, (1, 7, 80), strict=True)
    ]
    int8._check(candidate, checkpoint, len(chosen), batch)
    answers = [run_packed(session(x), checkpoint, batch) for x in (path, candidate)]
    found = agreement(*([one[SENTENCE_EMBEDDING] for one in many] for many in answers))
    assert found.lowest > 0.99


def test_the_search_keeps_few_layers(graph: Path, tiny: Path, texts: Path, bundle: Path) -> None:
    whole = read_manifest(bundle).quantization
    assert whole is not None
    least = 1 - (1 - whole.mean_cosine) * 0.8  # more than int8 reaches in all layers
    path, record = quantized(graph, tiny, Int8Options(texts, min_cosine=least))
    assert record.mean_cosine >= least
    assert 1 <= len(record.keep_fp32) <= 6
    assert int8.count_integer_products(path) == 12 - len(record.keep_fp32)
    kept = record.keep_fp32
    if len(kept) > 1:  # one layer fewer would not have been enough
        checkpoint = load(str(tiny))
        sample = read_sample(texts)
        batches = [tokenized(checkpoint, sample.calibrate)]
        feeds = [feed_of(session(graph), checkpoint, batch) for batch in batches]
        rounded = round_linears(graph, feeds, lambda _: None)
        ranked = sorted(rounded, key=lambda one: -one.error)
        fewer = {one.linear.name for one in ranked[: len(kept) - 1]}
        judge = tokenized(checkpoint, sample.judge)
        found = Candidates(graph, checkpoint, rounded, judge).judge(fewer)
        assert found.mean < least


def test_weights_of_int8_lie_beside_the_graph_that_is_judged(
    graph: Path, tiny: Path, texts: Path
) -> None:
    """Those of BERT-base are more than a graph may have, which native kernels look at first."""
    path, _ = quantized(graph, tiny, Int8Options(texts, min_cosine=0.9))
    model = onnx.load(str(path), load_external_data=False)
    weights = [one for one in model.graph.initializer if np.prod(one.dims) >= 1024]
    assert onnx.TensorProto.INT8 in {one.data_type for one in weights}
    assert {one.data_location for one in weights} == {onnx.TensorProto.EXTERNAL}
    assert onnx.load(str(path)).graph.initializer[0].data_location == onnx.TensorProto.DEFAULT


@pytest.mark.slow
def test_below_the_threshold_nothing_is_written(tiny: Path, texts: Path, tmp_path: Path) -> None:
    arguments = [str(tiny), "--output", str(tmp_path / "bundle"), "--precision", "int8"]
    arguments += ["--calibration", str(texts), "--min-cosine", "0.9999999"]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 1
    assert "Worst texts:" in result.output
    assert "6 linear layers kept" in result.output
    assert not list(tmp_path.iterdir())


def test_missing_integer_products_are_refused(bundle: Path, tiny: Path, texts: Path) -> None:
    checkpoint = load(str(tiny))
    judge = tokenized(checkpoint, read_sample(texts).judge)
    with pytest.raises(ExportError, match="12 integer matrix products for 13"):
        int8._check(bundle / GRAPH_NAME, checkpoint, 13, judge)


def test_int8_options_without_int8_are_an_error(tiny: Path, tmp_path: Path) -> None:
    arguments = [str(tiny), "--output", str(tmp_path / "bundle"), "--keep-fp32", "layer.0.*"]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 2
    assert "--precision int8" in result.output


@pytest.mark.slow
def test_a_real_model_agrees_with_fp32(
    checkpoint: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    """On texts that calibration did not see; the bundle of the other tests is the fp32 graph."""
    real = load(str(checkpoint))
    sample = read_sample(None)
    fp32 = tmp_path / GRAPH_NAME
    int8._prepare(onnx.load(str(bundle_folder / GRAPH_NAME)), fp32, real, sample)
    run = session(bundle_folder / GRAPH_NAME)
    feeds = [feed_of(run, real, tokenized(real, sample.calibrate))]
    rounded = round_linears(fp32, feeds, lambda _: None)
    assert {one.quantizer.formulation for one in rounded} == {"static", "smoothed", "split"}
    candidate = tmp_path / "int8.onnx"
    model = write_int8(onnx.load(str(fp32), load_external_data=False), rounded)
    candidate.write_bytes(model.SerializeToString())
    judge = tokenized(real, sample.judge)
    int8._check(candidate, real, len(rounded), judge)
    expected = [answer[SENTENCE_EMBEDDING] for answer in run_packed(run, real, judge)]
    got = [answer[SENTENCE_EMBEDDING] for answer in run_packed(session(candidate), real, judge)]
    found = agreement(expected, got)
    assert found.mean >= 0.997
    assert found.lowest >= 0.98


def test_compensation_beats_plain_rounding() -> None:
    generator = np.random.default_rng(1)
    mixing = generator.normal(size=(24, 24))
    rows = (generator.normal(size=(500, 24)) @ mixing).astype(np.float32)
    weight = generator.normal(size=(24, 16)).astype(np.float32)
    levels, scales = round_weight(weight, *compensation(rows.T @ rows))
    plain = np.rint(weight / scales) * scales
    exact = rows @ weight
    assert np.linalg.norm(rows @ (levels * scales) - exact) < 0.85 * np.linalg.norm(
        rows @ plain - exact
    )


def seen(rows: Float32Array) -> CalibrationRows:
    statistics = CalibrationRows()
    statistics.add(rows)
    return statistics


@pytest.mark.parametrize("producer", ["Gelu", "LayerNormalization", "Attention", "Relu"])
def test_a_quantizer_restores_its_rows(producer: str) -> None:
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(64, 32)).astype(np.float32)
    rows = np.maximum(rows, -0.17) if producer == "Gelu" else rows
    weight = generator.normal(size=(32, 8)).astype(np.float32)
    quantizer = choose(producer, seen(rows), [weight])
    assert isinstance(quantizer, Quantizer)
    assert np.abs(quantizer.restored(rows) - quantizer.prepared(rows)).max() < 0.05
    assert activation_error(quantizer, rows, [weight]) < 0.025


def test_an_outlier_channel_is_smoothed() -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(64, 32)).astype(np.float32)
    rows[:, 5] *= 50
    weight = generator.normal(size=(32, 8)).astype(np.float32)
    weight[5] /= 50
    assert choose("LayerNormalization", seen(rows), [weight]).formulation == "smoothed"


def test_a_large_channel_of_gelu_is_split() -> None:
    """Each column saturates where the next begins, so that all share a scale eight times finer."""
    generator = np.random.default_rng(4)
    before = torch.from_numpy(generator.normal(size=(512, 96)).astype(np.float32))
    before[::3, 7] += 24
    rows = torch.nn.functional.gelu(before).numpy()
    weight = generator.normal(size=(96, 8)).astype(np.float32)
    split = choose("Gelu", seen(rows), [weight], may_split=True)
    assert split.formulation == "split"
    assert set(split.copies) == {7}
    assert split.largest * (len(split.copies) + 1) >= rows.max()
    whole = choose("Gelu", seen(rows), [weight])
    assert whole.formulation == "gelu_row"
    shifted = before[:, split.copies] - torch.from_numpy(split.shifts)
    exact = np.concatenate([rows, torch.nn.functional.gelu(shifted).numpy()], axis=1)
    levels = np.rint(exact / split.scale).clip(-split.zero_point, 255 - split.zero_point)
    product = levels * split.scale @ split.weight(weight)
    assert np.linalg.norm(product - rows @ weight) < 0.03 * np.linalg.norm(rows @ weight)


def test_broken_calibration_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"txt": "b"}\n', encoding="utf-8")
    with pytest.raises(ExportError, match="line 2"):
        read_sample(path)
    path.write_text('{"text": "a"}\n', encoding="utf-8")
    with pytest.raises(ExportError, match="has 1 texts"):
        read_sample(path)


def test_many_calibration_texts_are_thinned_out(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(["w1 w2 " * 60] * 150), encoding="utf-8")  # 100 x 122 tokens
    sample = read_sample(path)
    assert len(sample.calibrate) == 100
    assert len(for_calibration(load(str(tiny)), sample)) == 34


def test_transposes_of_shared_weights_are_folded() -> None:
    """A weight that is read as it is too stays, rather than be stored twice."""
    make = onnx.helper.make_node
    matrices = [np.arange(6, dtype=np.float32).reshape(2, 3) + n for n in range(2)]
    nodes = [make("Transpose", ["w0"], ["t0"], perm=[1, 0])]
    nodes += [make("Transpose", ["w0"], ["t0_again"], perm=[1, 0])]
    nodes += [make("Transpose", ["w1"], ["t1"], perm=[1, 0])]
    nodes += [make("MatMul", ["x", "t0"], ["a"]), make("MatMul", ["x", "t0_again"], ["b"])]
    nodes += [make("MatMul", ["x", "t1"], ["c"]), make("MatMul", ["a", "w1"], ["d"])]
    graph = onnx.helper.make_graph(
        [*nodes, make("Concat", ["a", "b", "c", "d"], ["y"], axis=1)],
        "shared",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 9])],
        [onnx.numpy_helper.from_array(m, f"w{n}") for n, m in enumerate(matrices)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    rows = {"x": np.ones((1, 3), np.float32)}
    before = onnx.reference.ReferenceEvaluator(model).run(None, rows)
    assert fold_transposes(model) == 1
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 1
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[3, 2], [2, 3]]
    np.testing.assert_array_equal(onnx.reference.ReferenceEvaluator(model).run(None, rows), before)
