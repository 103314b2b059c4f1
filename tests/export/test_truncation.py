"""`truncate_dim` of a sentence-transformers folder: the vectors are those of its own `encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_server.models.startup import ModelOptions
from bertd_server.tasks import embedding
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.served import open_model
from helpers.tiny_bert import save_tiny_bert
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

TEXTS = ("w1 w2 w3", "w4", "w90 w7 w7 w31 w8 w2")


async def test_vectors_are_cut_after_all_modules_and_not_normalised_again(tmp_path: Path) -> None:
    encoder = Transformer(str(save_tiny_bert(tmp_path / "encoder")))
    modules = [encoder, Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu", truncate_dim=8).save(str(tmp_path / "st"))
    export_model(str(tmp_path / "st"), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.dimensions, manifest.normalized) == (8, False)
    model = open_model(tmp_path / "bundle", ModelOptions())
    replies = await embedding.embed(model, texts_of(TEXTS), Fit("error"))
    ours: list[Any] = [reply.outcome for reply in replies]
    await model.drain()
    theirs = SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(list(TEXTS))
    assert theirs.shape == (3, 8)
    assert np.linalg.norm(theirs, axis=1).max() < 0.95
    np.testing.assert_allclose(np.stack(ours), theirs, atol=1e-5)
