"""Texts of the traffic: all different, in the lengths of the comparison's mixed batch.

They must differ, since a server may compute equal texts in flight once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from bertd import bundle
from tokenizers import Tokenizer

from bertd_bench.harness.texts import MIXED_LENGTHS, WORDS

MEAN_TOKENS = sum(MIXED_LENGTHS) / len(MIXED_LENGTHS)


def seeded(seed: int) -> random.Random:
    """Randomness for traffic that is the same in every run."""
    return random.Random(seed)  # noqa: S311 - traffic is no secret


def texts_for(folder: Path, count: int, lengths: Sequence[int] = MIXED_LENGTHS) -> list[str]:
    """Different texts of these lengths by a bundle's tokenizer, the same in every run.

    Raises:
        ValueError: its tokenizer joins words, so that lengths cannot be met.
    """
    tokenizer = Tokenizer.from_file(str(folder / bundle.TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return build_texts(tokenizer, count, seeded(0), lengths)


def build_texts(
    tokenizer: Tokenizer,
    count: int,
    rng: random.Random,
    lengths: Sequence[int] = MIXED_LENGTHS,
) -> list[str]:
    """Build different texts; every run of ``len(lengths)`` of them has each length once.

    Args:
        tokenizer: without truncation or padding; splits at spaces.
        count: how many texts.
        rng: draws words and the order of lengths.
        lengths: tokens of the texts, special tokens included.

    Raises:
        ValueError: this tokenizer joins words, so that lengths cannot be met.
    """
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    words = [word for word in WORDS if len(tokenizer.encode(word)) == special + 1]
    texts: dict[str, int] = {}
    while len(texts) < count:
        for length in rng.sample(lengths, len(lengths)):
            text = ""
            while not text or text in texts:
                text = " ".join(rng.choices(words, k=length - special))
            texts[text] = length
    chosen = list(texts.items())[:count]
    for text, length in chosen[: 4 * len(lengths)]:
        if len(tokenizer.encode(text)) != length:
            raise ValueError(f"{text!r} has not {length} tokens: this tokenizer joins words")
    return [text for text, _ in chosen]
