"""A tokenizer of one token a word."""

from __future__ import annotations

from bertd_bench.harness import texts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing


def small_tokenizer() -> Tokenizer:
    """One token per word, and [CLS] and [SEP] around them."""
    vocabulary = {
        word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *texts.WORDS])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer
