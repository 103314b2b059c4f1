"""fp16: the rewrite on each layout, what stays in fp32, the gate, and checkpoints in half."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bertd.bundle import GRAPH_NAME, TOKEN_EMBEDDINGS, WEIGHTS_NAME, read_manifest, verify_files
from bertd_export.checkpoint import loading as checkpoints
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_export.graph.fusion import check_fusion
from bertd_export.graph.runtime import session
from bertd_export.graph.trace import trace
from bertd_export.parity.packed_batch import run_packed
from bertd_export.parity.reference import eager_outputs
from bertd_export.quantization.conversion import QualityGate
from bertd_export.quantization.fp16 import Fp16Options, to_fp16
from bertd_export.verification.verify import verify
from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from bertd_server.models.startup import ModelOptions
from bertd_server.tasks import embedding
from bertd_server.tokenization.reader import texts_of
from click.testing import CliRunner
from helpers.served import open_model
from helpers.tampering import allow_anything
from helpers.tiny import VOCABULARY, save_tiny
from helpers.tiny_bert import WORDS, save_tiny_bert
from onnx import TensorProto
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers import AutoModel

LENIENT = Fp16Options(min_cosine=0.99)  # random weights amplify rounding


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def output(source: Path) -> str:
    """What the command says of the export."""
    arguments = [str(source), "--output", str(source.parent / "bundle"), "--precision", "fp16"]
    result = CliRunner().invoke(export, [*arguments, "--min-cosine", "0.99"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def bundle(source: Path, output: str) -> Path:
    assert output
    return source.parent / "bundle"


def kinds(model: onnx.ModelProto) -> Counter[int]:
    """How many numbers the weights of each type hold."""
    found: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        found[tensor.data_type] += int(np.prod(tensor.dims))
    return found


def test_the_bundle_is_half_the_size_and_says_what_it_is(bundle: Path, output: str) -> None:
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    assert manifest.precision == "fp16"
    assert manifest.half is not None
    assert 0.9999 < manifest.half.min_cosine <= manifest.half.mean_cosine < 1
    assert manifest.half.keep_fp32 == ()
    assert manifest.quantization is None
    assert "for accelerators" in output
    model = onnx.load(str(bundle / GRAPH_NAME))
    found = kinds(model)
    assert found[TensorProto.FLOAT] < 0.1 * found[TensorProto.FLOAT16]  # the pooler
    assert (bundle / WEIGHTS_NAME).stat().st_size < 2.3 * found[TensorProto.FLOAT16]
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}


def test_an_fp16_bundle_is_verified_with_room_for_an_accelerator(
    bundle: Path, source: Path
) -> None:
    found = verify(bundle, str(source))
    assert not found.failures
    assert all(2 * parity.max_abs_diff <= parity.tolerance for parity in found.parity.values())
    assert 0.9999 < (found.cosine or 0) < 1
    with pytest.raises(ExportError, match=r"no NoSuchProvider here; it has .*CPUExecutionProvider"):
        verify(bundle, str(source), provider="NoSuchProvider")


def test_other_weights_are_found_whatever_the_manifest_allows(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    allow_anything(copy)
    [failure] = verify(copy, str(save_tiny_bert(tmp_path / "other", seed=1))).failures
    assert "less than 0.999890" in failure


def test_answers_are_the_same_alone_and_in_a_batch(bundle: Path) -> None:
    engine = Engine(bundle, read_manifest(bundle))
    generator = np.random.default_rng(0)
    texts = [
        TokenSequence(generator.integers(5, len(WORDS), n), np.zeros(n, np.int64))
        for n in (5, 2, 31, 9)
    ]
    together = engine.embed(texts)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(engine.embed([text])[0], vector)


async def test_a_server_on_a_cpu_says_that_fp16_is_of_no_use(bundle: Path) -> None:
    options = ModelOptions()
    with capture_logs() as logs:
        model = open_model(bundle, options)
        (answer,) = await embedding.embed(model, texts_of(["w1 w2"]))
        await model.drain()
    assert answer.read == 4
    (line,) = [entry for entry in logs if entry["event"] == "fp16 on a CPU"]
    assert "export fp32 or int8" in line["remedy"]


@pytest.mark.parametrize(
    ("family", "calls"),
    [
        pytest.param("albert", 4, marks=pytest.mark.slow),
        pytest.param("modernbert", 2, marks=pytest.mark.slow),
        pytest.param("deberta-v2", 2, marks=pytest.mark.slow),
    ],
)
def test_every_layout_runs_in_fp16(family: str, calls: int, tmp_path: Path) -> None:
    """ALBERT's layers share weights, ModernBERT has local attention, DeBERTa a position bias."""
    source = save_tiny(tmp_path / "source", family, max_position_embeddings=302)
    checkpoint = checkpoints.load(str(source))
    halved = to_fp16(
        trace(checkpoint), LENIENT, QualityGate(checkpoint, 1e-4), tmp_path, lambda _: None
    )
    assert halved.record.mean_cosine > 0.999
    functions = [function.name for function in halved.graph.functions]
    assert any(name.endswith("AttentionHalf") for name in functions)
    assert kinds(halved.graph)[TensorProto.FLOAT16] > 10 * kinds(halved.graph)[TensorProto.FLOAT]
    path = tmp_path / GRAPH_NAME
    onnx.save(halved.graph, str(path))
    check_fusion(path, calls)
    texts = [  # two kernels, and a run of two texts for each
        TokenizedText(
            np.random.default_rng(n).integers(5, VOCABULARY, size), np.zeros(size, np.int64)
        )
        for n, size in enumerate((300, 20, 300, 20, 257))
    ]
    expected = eager_outputs(checkpoint, texts)
    for answer, want in zip(run_packed(session(path), checkpoint, texts), expected, strict=True):
        np.testing.assert_allclose(
            answer[TOKEN_EMBEDDINGS], want[TOKEN_EMBEDDINGS], rtol=0, atol=0.05
        )
    if family == "modernbert":  # positions beyond 2048 are no fp16 numbers
        products = {name for n in halved.graph.graph.node if n.op_type == "Cos" for name in n.input}
        assert products
        assert not any(name.endswith("/fp16") for name in products)


def spoil(source: Path, folder: Path, name: str, factor: float) -> Path:
    """The checkpoint with one of its weights scaled."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name] * factor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("encoder.layer.0.output.dense.weight", 3e4),  # values beyond the range
        # a weight beyond it
        pytest.param("encoder.layer.1.output.dense.bias", 1e6, marks=pytest.mark.slow),
    ],
)
def test_what_leaves_the_range_stays_in_fp32(
    name: str, factor: float, source: Path, tmp_path: Path
) -> None:
    folder = spoil(source, tmp_path / "large", name, factor)
    checkpoint = checkpoints.load(str(folder))
    halved = to_fp16(
        trace(checkpoint), LENIENT, QualityGate(checkpoint, 1e-3), tmp_path, lambda _: None
    )
    assert halved.record.keep_fp32
    assert halved.record.largest > 65504 / 4
    assert halved.record.mean_cosine > 0.999
    assert all(np.isfinite(value) for value in halved.differences.values())


@pytest.mark.slow
def test_below_the_threshold_nothing_is_written(source: Path, tmp_path: Path) -> None:
    arguments = [str(source), "--output", str(tmp_path / "bundle"), "--precision", "fp16"]
    result = CliRunner().invoke(export, [*arguments, "--min-cosine", "0.99999999"])
    assert result.exit_code == 1
    assert "Worst texts:" in result.output
    assert not list(tmp_path.iterdir())
    result = CliRunner().invoke(export, [*arguments, "--keep-fp32", "layer.0.*"])
    assert result.exit_code == 2
    assert "--keep-fp32 needs --precision int8" in result.output


@pytest.mark.slow
def test_weights_stored_as_f16_are_exported_in_fp32(source: Path, tmp_path: Path) -> None:
    folder = spoil(source, tmp_path / "half", "pooler.dense.bias", 1.0)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float16)
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    result = CliRunner().invoke(export, [str(folder), "--output", str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.output
    saved = onnx.load(str(tmp_path / "bundle" / GRAPH_NAME))
    embedding = stored["embeddings.word_embeddings.weight"].float().numpy()
    found = [onnx.numpy_helper.to_array(tensor) for tensor in saved.graph.initializer]
    assert any(each.shape == embedding.shape and np.array_equal(each, embedding) for each in found)
    assert TensorProto.FLOAT16 not in kinds(saved)
    assert read_manifest(tmp_path / "bundle").precision == "fp32"
