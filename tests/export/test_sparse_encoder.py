"""SparseEncoder folders: EmbedSparse from raw text gives the weights of SparseEncoder.encode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle import SparseRules, read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.errors import ExportError
from bertd_server.models.model import Model
from bertd_server.models.startup import ModelOptions
from bertd_server.tasks import sparse
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.served import open_model
from helpers.tiny import save_tiny
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

TEXTS = ("The cat sat on a mat.", "안녕", "rain", "the dog saw the sea and the rain " * 12)
PROMPTS = {"query": "the cat saw: ", "document": ""}


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT for fill-mask."""
    return save_tiny(
        tmp_path_factory.mktemp("filler"), "bert", "fill-mask", alphabet="".join(TEXTS)
    )


def save_sparse(filler: Path, folder: Path, *, old: bool = False, **pooling: Any) -> Path:
    """A SparseEncoder's folder, as sentence-transformers 6 or 5 saves it."""
    encoder = SparseEncoder(
        modules=[
            Transformer(str(filler), transformer_task="fill-mask", max_seq_length=40),
            SpladePooling(**pooling),
        ],
        prompts=PROMPTS,
        default_prompt_name="query",
        max_active_dims=7 if old else None,
        device="cpu",
    )
    encoder.save(str(folder))
    if old:
        path = folder / "modules.json"
        modules = json.loads(path.read_text())
        modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
        modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
        path.write_text(json.dumps(modules))
        limits = {"max_seq_length": 40, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    return folder


async def weights(model: Model, **how: Any) -> NDArray[np.float32]:
    """The answers of EmbedSparse as rows of the whole vocabulary."""
    rows = np.zeros((len(TEXTS), model.manifest.vocab_size), np.float32)
    replies = await sparse.embed_sparse(model, texts_of(TEXTS), Fit("truncate"), **how)
    for row, reply in zip(rows, replies, strict=True):
        assert isinstance(reply.outcome, sparse.SparseVector)
        assert (reply.outcome.values > 0).all()
        row[reply.outcome.indices] = reply.outcome.values
    return rows


@pytest.mark.parametrize(
    ("pooling", "old"),
    [
        ({"pooling_strategy": "max"}, False),
        pytest.param(
            {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
            True,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["max of 6", "sum of 5"],
)
async def test_the_weights_are_those_of_sparse_encoder(
    filler: Path, tmp_path: Path, pooling: dict[str, str], old: bool
) -> None:
    """Pooling, activation, max_active_dims, prompts, the limit of tokens, old names of modules."""
    source = save_sparse(filler, tmp_path / "source", old=old, **pooling)
    export_model(str(source), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.task, manifest.max_tokens) == ("fill-mask", 40)
    assert manifest.sparse == SparseRules(
        pooling=pooling["pooling_strategy"],
        activation=pooling.get("activation_function", "relu"),
        max_active_dims=7 if old else None,
    )
    theirs = SparseEncoder(str(source), device="cpu")
    model = open_model(tmp_path / "bundle", ModelOptions())
    seen = []
    for name in (None, "document"):
        ours = await weights(model, prompt_name=name)
        expected = theirs.encode(list(TEXTS), prompt_name=name, convert_to_sparse_tensor=False)
        np.testing.assert_allclose(ours, expected.numpy(), atol=2e-5)
        seen.append(ours)
    assert np.abs(seen[0] - seen[1]).max() > 0.01  # the prompt matters
    fewer = await weights(model, prompt_name="", max_active_dims=3)
    assert ((fewer > 0).sum(axis=1) == 3).all()
    await model.drain()


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "'mean'; it must be max or"),
        ("1_SpladePooling/config.json", {"topk": 3}, "topk is not known"),
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "'fill-mask' al"),
        ("config_sentence_transformers.json", {"max_active_dims": 0}, "positive integer"),
        ("config_sentence_transformers.json", {"model_type": "SentenceTransformer"}, "model_type"),
        ("config_sentence_transformers.json", {"model_type": "ColBERT"}, "is of ColBERT, by its"),
    ],
)
def test_what_a_sparse_encoder_is_not_is_refused(
    filler: Path, tmp_path: Path, file: str, changes: dict[str, Any], words: str
) -> None:
    source = save_sparse(filler, tmp_path)
    path = source / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ExportError, match=words):
        load(str(source))


def test_a_sparse_encoder_does_nothing_else(filler: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="with SpladePooling cannot do feature-extraction"):
        load(str(save_sparse(filler, tmp_path)), "feature-extraction")


def test_what_the_reference_takes_from_the_tokenizer_is_named(filler: Path, tmp_path: Path) -> None:
    folder = save_sparse(filler, tmp_path / "source")
    path = next(folder.rglob("tokenizer_config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": ["input_ids"]}))
    with pytest.raises(ExportError, match=r"'attention_mask' .* model_input_names"):
        export_model(str(folder), tmp_path / "bundle")
