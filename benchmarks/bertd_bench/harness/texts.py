"""Texts of an exact number of tokens, so that a case means the same for every model.

Either words, for what tokenises, or random tokens as the engine takes them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from bertd.bundle import Manifest
from bertd_server.engine.packing import TokenSequence
from tokenizers import Tokenizer

MIXED_LENGTHS = (8, 8, 9, 10, 11, 12, 12, 14, 15, 16, 18, 20, 24, 30, 60, 120)
MIXED_BATCH = (
    f"The mixed batch is {len(MIXED_LENGTHS)} texts of {min(MIXED_LENGTHS)} to "
    f"{max(MIXED_LENGTHS)} tokens, {sum(MIXED_LENGTHS)} in all"
)


def title_of(case: str) -> str:
    """A case as tables show it: results call the mixed batch "16 mixed"."""
    return "mixed batch" if case == f"{len(MIXED_LENGTHS)} mixed" else case


# Everyday English words; most vocabularies hold each as one token.
WORDS = (
    "the", "of", "and", "a", "to", "in", "is", "was", "for", "on", "with", "he", "that", "by",
    "at", "from", "his", "it", "an", "were", "are", "which", "this", "be", "or", "had", "first",
    "one", "their", "its", "new", "after", "who", "they", "two", "her", "she", "been", "other",
    "when", "time", "during", "there", "into", "school", "all", "only", "more", "over", "some",
    "year", "state", "world", "city", "may", "also", "most", "used", "later", "people", "where",
    "between", "part", "such", "under", "house", "water", "river", "road", "small", "large",
    "early", "family", "music", "book", "night", "day", "red", "green", "white", "black", "long",
    "high", "old", "young", "light", "dark", "open", "close", "near", "far", "north", "south",
    "east", "west", "land", "sea", "hand", "head", "eye", "door", "table", "wind", "rain",
    "stone", "tree", "bird", "fish", "horse", "dog", "cat", "ship", "train", "game", "team",
    "war", "peace", "law", "king", "work", "play", "run", "walk", "read", "write", "speak",
    "hear",
)  # fmt: skip


def build_text(
    tokenizer: Tokenizer, tokens: int, rng: random.Random, words: Sequence[str] = WORDS
) -> str:
    """Build a text of exactly `tokens` tokens, special tokens included.

    Args:
        tokenizer: without truncation or padding.
        tokens: how many.
        rng: chooses the words.
        words: to choose from.

    Raises:
        ValueError: these words cannot fill the text exactly.
    """
    text = ""
    while True:
        for word in rng.sample(words, len(words)):
            longer = f"{text} {word}".lstrip()
            count = len(tokenizer.encode(longer))
            if count <= tokens:
                break
        else:
            raise ValueError(f"no text of exactly {tokens} tokens can be made of these words")
        if count == tokens:
            return longer
        text = longer


def random_texts(
    rng: np.random.Generator, lengths: Sequence[int], manifest: Manifest
) -> list[TokenSequence]:
    """One text of each length, in tokens."""
    return [
        TokenSequence(rng.integers(5, manifest.vocab_size, length), np.zeros(length, np.int64))
        for length in lengths
    ]
