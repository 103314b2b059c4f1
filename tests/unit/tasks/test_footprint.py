"""What a call takes in memory, as arithmetic on lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bertd import bundle
from bertd_server.engine.packing import TokenSequence
from bertd_server.tasks import footprint
from bertd_server.tokenization.reader import Fit, Input, Reading, Window

MIB = 2**20
WINDOW = Fit("window", stride=253)


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> bundle.Manifest:
    found = bundle.read_manifest(tiny_bundle)
    return found.model_copy(update={"max_tokens": 256, "dimensions": 384})


def of(inputs: list[Input], fit: Fit, manifest: bundle.Manifest, *, details: bool = False) -> int:
    return footprint.of_inputs(
        inputs, fit, manifest, (bundle.SENTENCE_EMBEDDING,), details=details
    )[0]


def test_windows_count_and_not_the_request(manifest: bundle.Manifest) -> None:
    """154 KB of texts are 60,000 windows with the largest stride, and hundreds of MiB."""
    texts = [Input("a " * 1_200)] * 64
    assert of(texts, WINDOW, manifest) > 400 * MIB
    assert of(texts, Fit("window"), manifest) < 8 * MIB
    assert of(texts, Fit("truncate"), manifest) < 4 * MIB
    assert of([Input("a b c")], WINDOW, manifest) < 10_000


def test_offsets_count_for_what_is_read(manifest: bundle.Manifest) -> None:
    texts = [Input("a " * 50_000)] * 20
    plain = of(texts, Fit("window"), manifest)
    assert of(texts, Fit("window"), manifest, details=True) > plain + 300 * 10**6
    assert of(texts, Fit("truncate"), manifest, details=True) < plain


def test_readings_say_what_their_characters_could_not(manifest: bundle.Manifest) -> None:
    """Windows, tokens, masks, and outputs in all their copies."""
    ids = np.full(10, 7)
    window = Window(TokenSequence(ids, np.zeros(10, np.int64)), np.arange(10))
    readings = [Reading((window,) * 1_000, 10_000, None, "")]
    few = footprint.of_readings(readings, manifest, (bundle.SENTENCE_EMBEDDING,))
    assert few > 1_000 * (384 * 4 * 3 + 10 * 24)
    masked = manifest.model_copy(
        update={
            "outputs": {bundle.LOGITS: "masks"},
            "task": "fill-mask",
            "mask_token_id": 7,
            "vocab_size": 30_000,
        }
    )
    assert footprint.of_readings(readings, masked, (bundle.LOGITS,)) > 10_000 * 30_000 * 4
    masked = masked.model_copy(update={"mask_token_id": 8})
    assert footprint.of_readings(readings, masked, (bundle.LOGITS,)) < few


def test_calls_that_only_tokenise_count_too() -> None:
    inputs = [Input("a " * 50_000)] * 10
    (kept, request), (counted, _) = (
        footprint.of_tokens(inputs, kept=kept) for kept in (True, False)
    )
    assert request == 3_000_000
    assert kept > 200 * 10**6 > 20 * 10**6 > counted
    assert footprint.of_ids(10**6) > 10**7
