"""Which token a target of fill-mask is, of every kind of vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from bertd_server.errors import InvalidInput
from bertd_server.tasks.targets import target_ids
from helpers.stepwise import counted, done
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

PIECES = {"[UNK]": 0, "cat": 1, "##s": 2, "dog": 3}
WORDPIECE: Any = Tokenizer(models.WordPiece(PIECES, unk_token="[UNK]"))  # noqa: S106 - no password
WORDPIECE.normalizer = normalizers.Lowercase()
UNIGRAM: Any = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁cat", -1.0), ("s", -2.0)], unk_id=0))
UNIGRAM.pre_tokenizer = pre_tokenizers.Metaspace()


@pytest.mark.parametrize(
    ("tokenizer", "targets", "ids"),
    [
        (WORDPIECE, ["dog", "cat", "DOG", "##s", "[UNK]"], [0, 1, 2, 3]),
        (UNIGRAM, ["cat", "▁cat", "s"], [1, 2]),
    ],
)
def test_entries_come_first_then_what_reads_as_one_token(
    tokenizer: Tokenizer, targets: list[str], ids: list[int]
) -> None:
    """Each once, ascending; however many there are to encode."""
    for repeats in (1, 40):
        found, parts = counted(target_ids(tokenizer, targets * repeats))
        assert parts > repeats
        assert found is not None
        assert found.tolist() == ids
    assert done(target_ids(tokenizer, [])) is None


@pytest.mark.parametrize(
    ("tokenizer", "target", "words"),
    [
        (WORDPIECE, "cats", r"'cats', which is not one token .* reads as cat ##s"),
        (WORDPIECE, "☃", r"reads as \[UNK\]"),
        (UNIGRAM, "cats", "reads as ▁cat s"),
        (UNIGRAM, "☃", "reads as ▁☃"),
    ],
)
def test_what_is_not_one_known_token_is_refused(
    tokenizer: Tokenizer, target: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        done(target_ids(tokenizer, [target]))
    assert (refused.value.field, refused.value.reason) == ("targets[0]", "unknown_value")
