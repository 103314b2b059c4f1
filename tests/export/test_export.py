"""The exporter, on small random models."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from bertd.bundle import (
    GRAPH_NAME,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKENIZER_NAME,
    BundleError,
    read_manifest,
    verify_files,
)
from bertd_export.bundle import export_model
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_server.engine.packing import TokenSequence, pack
from click.testing import CliRunner
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(95))]


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "made" / "tiny"
    lines: list[str] = []
    export_model(str(checkpoint), folder, progress=lines.append)
    assert lines
    return folder


def test_the_manifest_and_the_files(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    assert (manifest.name, manifest.num_layers, manifest.max_tokens) == ("tiny", 2, 160)
    assert manifest.pooling == ("mean",)
    assert not manifest.normalized
    assert set(manifest.parity) == {SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, POOLER_OUTPUT}
    for parity in manifest.parity.values():
        assert 0 < parity.max_abs_diff <= parity.tolerance
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_attention_is_one_function(bundle: Path) -> None:
    model = onnx.load(str(bundle / GRAPH_NAME))
    onnx.checker.check_model(str(bundle / GRAPH_NAME))
    linear = ["Fp32Linear", "Fp32LinearGelu", "Fp32LinearNorm"]
    assert [f.name for f in model.functions] == ["PackedAttention", "PackedMean", *linear]
    assert [n.op_type for n in model.graph.node].count("PackedAttention") == 2


def _loops(bundle: Path, lengths: list[int], profile: Path) -> int:
    """How many Loops run for sequences of these lengths."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(profile)
    session = ort.InferenceSession(str(bundle / GRAPH_NAME), options)
    asked = {entry.name for entry in session.get_inputs()}
    ids = [np.arange(5, 5 + length) for length in lengths]
    batch = pack([TokenSequence(each, np.zeros_like(each)) for each in ids])
    session.run(None, {name: x for name, x in batch.feeds().items() if name in asked})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert ran.count("MatMul") > 0
    return ran.count("Loop")


def test_a_lone_text_passes_no_loop(bundle: Path, tmp_path: Path) -> None:
    assert _loops(bundle, [9], tmp_path / "alone") == 0
    layers = read_manifest(bundle).num_layers
    assert _loops(bundle, [9, 9], tmp_path / "two") == 2 * layers + 1  # and the mean


def test_tampering_is_detected(checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    path = folder / TOKENIZER_NAME
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=TOKENIZER_NAME):
        verify_files(folder, read_manifest(folder))
    with pytest.raises(ExportError, match="--force"):
        export_model(str(checkpoint), folder, progress=lambda _: None)
    export_model(str(checkpoint), folder, force=True, progress=lambda _: None)
    verify_files(folder, read_manifest(folder))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_difference_above_tolerance_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [str(checkpoint), "--output", str(tmp_path / "bundle"), "--tolerance", "1e-12"]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 1
    assert "worst case" in result.output
    assert not list(tmp_path.iterdir())
