"""Answers from raw text on: those of the reference library, or no bundle."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.errors import ExportError
from bertd_export.text_parity.comparison import compare_texts
from bertd_server.inside import open_model_sync
from helpers.checkpoints import save_checkpoint
from sentence_transformers import CrossEncoder

DOCUMENTS = ["w1 w2 w3", "w9 w8 w1 w10 w94", "w5"]


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_manifest_says_what_answers_were_compared_with(tiny_bundle: Path) -> None:
    found = read_manifest(tiny_bundle).text_parity
    assert found is not None
    assert found.reference.startswith("AutoTokenizer")
    assert found.max_abs_diff <= found.tolerance == 1e-4
    assert found.texts >= 12
    assert found.versions["transformers"] == version("transformers")


def test_a_bundle_of_other_weights_does_not_answer_as_the_reference(
    tiny_bundle: Path, other_bundle: Path
) -> None:
    checkpoint = load(str(other_bundle.parent / "checkpoint"))
    with pytest.raises(ExportError) as refused:
        compare_texts(tiny_bundle, checkpoint, 1e-4)
    message = refused.value.message
    assert "would not answer as AutoTokenizer" in message
    assert "The quick brown fox" in message
    assert "the token ids are the same: [2, " in message


def test_a_text_that_is_split_otherwise_is_shown_with_the_ids_of_both(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in (tiny_bundle.parent / "checkpoint").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    checkpoint = load(str(folder))
    checkpoint.stock_tokenizer.truncation_side = "left"
    with pytest.raises(ExportError, match=r"token ids differ from place 1 on: \[2, .*\], not \[2"):
        compare_texts(tiny_bundle, checkpoint, 1e-4)


def test_pairs_have_the_token_types_that_the_tokenizer_of_the_checkpoint_gives(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, "Bert", "ForSequenceClassification", num_labels=1)
    typed = CrossEncoder(str(folder)).predict([("w3 w4", text) for text in DOCUMENTS])
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    untyped = CrossEncoder(str(folder)).predict([("w3 w4", text) for text in DOCUMENTS])
    assert abs(typed - untyped).max() > 1e-3

    summary = export_model(str(folder), tmp_path / "bundle")
    rules = summary.manifest.tokenizer
    assert not rules.token_types
    assert "model_input_names" in rules.token_types_reason
    assert summary.manifest.text_parity is not None
    assert summary.manifest.text_parity.reference == "CrossEncoder.predict"
    with open_model_sync(
        tmp_path / "bundle", lanes=1, warmup_seconds=0, calibration_seconds=0
    ) as model:
        scores = [reply.outcome for reply in model.rerank_each("w3 w4", DOCUMENTS)]
    assert scores == pytest.approx(untyped.tolist(), abs=1e-5)
