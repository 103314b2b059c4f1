"""The grid of texts and batches on which an export is compared with PyTorch."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from bertd.bundle.runs import SHORT_TOKENS, arrange
from bertd_export.checkpoint.loading import Checkpoint, load
from bertd_export.parity import cases
from helpers.tiny_bert import save_tiny_bert


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(str(save_tiny_bert(tmp_path_factory.mktemp("checkpoints") / "tiny")))


def test_lengths_reach_the_longest(checkpoint: Checkpoint) -> None:
    lengths = {len(text.ids) for text in cases.texts(checkpoint).values()}
    assert {2, 3, 7, 16, 33, 64} <= lengths
    assert max(lengths) == checkpoint.max_tokens


def test_token_types_alone_and_mixed(checkpoint: Checkpoint) -> None:
    kinds = {tuple(np.unique(text.types)) for text in cases.texts(checkpoint).values()}
    assert kinds == {(0,), (1,), (0, 1)}


def test_every_special_token_is_inside_a_text(checkpoint: Checkpoint) -> None:
    text = cases.texts(checkpoint)["special tokens inside"]
    specials = {0, 1, 2, 3, 4}  # [PAD] [UNK] [CLS] [SEP] [MASK]
    assert specials <= set(text.ids[1:-1].tolist())


def test_every_text_is_alone_and_beside_others(checkpoint: Checkpoint) -> None:
    texts = cases.texts(checkpoint)
    names = list(texts)
    batches = cases.batches(texts)
    assert [[name] for name in names] == batches[: len(names)]
    assert {len(batch) for batch in batches} >= {1, len(names), 32, 33}
    for name in names:
        assert any(name in batch for batch in batches[len(names) :])


@pytest.mark.parametrize("longest", [17, 64, 256, 257, 512, 4096])
def test_runs_hold_different_texts_of_every_kind(checkpoint: Checkpoint, longest: int) -> None:
    """A leak within a run shows only between different texts."""
    texts = cases.texts(replace(checkpoint, max_tokens=longest))
    short: set[tuple[int, int]] = set()
    long: set[tuple[int, int]] = set()
    for batch in cases.batches(texts):
        found = arrange(np.array([len(texts[name].ids) for name in batch]))
        for runs, kinds in ((found.short_runs, short), (found.long_runs, long)):
            for start, end in pairwise(runs):
                members = [texts[batch[place]] for place in found.order[start:end]]
                different = len({text.ids.tobytes() for text in members})
                kinds.add((len(members[0].ids), different))
    assert any(length > 16 and different > 1 for length, different in short | long)
    if longest > SHORT_TOKENS:
        assert (SHORT_TOKENS, 1) in short
        assert any(length > 16 and different > 1 for length, different in short)
        assert any(different > 1 for _, different in long)
        assert (SHORT_TOKENS + 1, 1 if longest > SHORT_TOKENS + 1 else 2) in long
