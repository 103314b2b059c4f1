"""The grid of texts and batches on which an export is compared with PyTorch."""

import numpy as np
import pytest
from bertd_export import cases
from bertd_export.checkpoint import Checkpoint, load
from tiny_bert import save_tiny_bert


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
    names = list(cases.texts(checkpoint))
    batches = cases.batches(names)
    assert [[name] for name in names] == batches[: len(names)]
    assert {len(batch) for batch in batches} >= {1, len(names), 32, 33}
    for name in names:
        assert any(name in batch for batch in batches[len(names) :])
