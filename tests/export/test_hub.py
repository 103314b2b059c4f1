"""Checkpoints by hub id, from a cache folder in huggingface_hub's own layout; no network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.errors import ExportError
from transformers import BertConfig, BertModel, BertTokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hub", "cache"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline cache with the model `someone/tiny` in it."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = cache / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(snapshot)
    BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}).save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return cache


def test_a_hub_id_is_exported_and_its_commit_stands_in_the_manifest(
    hub: Path, tmp_path: Path
) -> None:
    """The bundle is named for the model and says which commit of it was read."""
    assert hub.is_dir()
    export_model("someone/tiny", tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.source.name, manifest.source.revision) == ("someone/tiny", COMMIT)
    assert manifest.name == "tiny"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("someone/absent", "someone/absent is not a folder here and cannot be fetched"),
        ("not a hub id", "not a hub id is neither a folder nor a hub id"),
        ("./nowhere", "./nowhere is not a folder"),
    ],
)
def test_what_is_not_there_is_named(hub: Path, tmp_path: Path, model: str, words: str) -> None:
    """One line, and nothing is written."""
    assert hub.is_dir()
    with pytest.raises(ExportError) as caught:
        export_model(model, tmp_path / "bundle")
    assert caught.value.message.startswith(words)
    assert not (tmp_path / "bundle").exists()
