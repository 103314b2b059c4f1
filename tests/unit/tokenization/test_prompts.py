"""How many tokens `include_prompt: false` leaves out: sentence-transformers' own count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle.prompts import pooled
from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.scheduling.deduplication import key_of
from bertd_server.tokenization.reader import Fit, Reader, Reading, texts_of
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "cat", "h", "hello", "ab"]


def reader(folder: Path, tokenizer: PreTrainedTokenizerFast, max_tokens: int = 8) -> Reader:
    """A reader of a bundle whose pooling leaves out prompts."""
    path = folder / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    return Reader(path, max_tokens=max_tokens, token_types=1, pools_prompt=False)


def left_out(of: Reader, prompt: str, text: str, fit: Fit) -> list[tuple[int, int]]:
    """Tokens left out, and tokens in all, of each window."""
    (reading,) = of(texts_of([text]), fit, prompt=prompt)
    assert isinstance(reading, Reading), reading
    return [(w.sequence.prompt_tokens, len(w.sequence)) for w in reading.windows]


def test_a_prompt_counts_without_its_last_special_token(tmp_path: Path) -> None:
    """Of "h" and "ello", which become one token, nothing but the separator is left."""
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    bert = reader(tmp_path, BertTokenizer(vocab=vocabulary))
    assert left_out(bert, "query: ", "cat", Fit()) == [(3, 5)]
    assert left_out(bert, "h", "ello", Fit()) == [(2, 3)]
    assert left_out(bert, "", "cat", Fit()) == [(0, 3)]
    long = left_out(bert, "query: ", "cat " * 9, Fit("window", stride=2))
    assert long == [(3, 8), (1, 8), (1, 5)]  # of later windows [CLS] alone
    assert left_out(bert, "query: ", "cat " * 9, Fit("truncate")) == [(3, 8)]
    assert left_out(bert, "query " * 9, "cat", Fit("truncate")) == [(7, 8)]


def test_a_text_of_its_prompt_alone_is_refused(tmp_path: Path) -> None:
    """Without special tokens a prompt may leave nothing: no vector is made of nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {piece: number for number, piece in enumerate([*letters, "Ġc"])}
    bpe = Tokenizer(models.BPE(vocab=ids, merges=[("Ġ", "c")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment,unused-ignore]
    fast: Any = PreTrainedTokenizerFast
    of = reader(tmp_path, fast(tokenizer_object=bpe), max_tokens=4)
    assert left_out(of, "b: ", "cat", Fit("truncate")) == [(3, 4)]  # and "Ġc" is of the text
    (refused,) = of(texts_of(["cat"]), Fit("truncate"), prompt="abcdef")
    assert isinstance(refused, InvalidInput)
    assert "no token beside those of its prompt" in str(refused)


def test_equal_tokens_with_another_prompt_are_another_answer() -> None:
    """Neither computed once for both, nor taken from the cache."""
    ids = np.arange(3)
    assert key_of(TokenSequence(ids, ids)) == key_of(TokenSequence(ids, ids, 0))
    assert key_of(TokenSequence(ids, ids)) != key_of(TokenSequence(ids, ids, 1))


def test_pooled_places_are_those_behind_the_prompts() -> None:
    places, bounds = pooled(np.array([0, 5, 8]), [3, 0])
    assert (places.tolist(), bounds.tolist()) == ([3, 4, 5, 6, 7], [0, 2, 5])


@pytest.mark.parametrize("leading", [[0, 0], [4, 2]])
def test_every_sequence_keeps_a_token(leading: list[int]) -> None:
    _, bounds = pooled(np.array([0, 5, 8]), leading)
    assert np.diff(bounds).tolist() == [5 - leading[0], 3 - leading[1]]
