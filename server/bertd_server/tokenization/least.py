"""What a text has at least, known before it is tokenised: some µs for what takes a ms.

::

    text ──" a"──────> words, each of them a token or more ──> tokens that are read at least
     └────"[MASK]"───> masks among the tokens that stay
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from bertd_server.tokenization.reader import Fit, Input

# A blank and a character that no normalisation takes away.
_WORD = re.compile(r"(?:^| )[0-9A-Za-z가-힣]")
_PROBE = "The 3 cats of 가나 saw a b c d 1 2 3 and 다"
_SPECIAL = 4  # tokens that a tokenizer adds to a text, at most


def words_are_tokens(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer splits texts at blanks first, so that each word is a token or more."""
    splitter, count = tokenizer.pre_tokenizer, len(_PROBE.split())
    if splitter is None:
        return False
    normal = _PROBE if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(_PROBE)
    pieces = splitter.pre_tokenize_str(normal)
    within = [piece for piece, _ in pieces if len(_WORD.findall(piece.strip(" ▁Ġ"))) > 1]
    encoding = tokenizer.encode(_PROBE, add_special_tokens=False)
    return not within and min(len(pieces), len(encoding)) >= count


def words(text: str, most: int) -> int:
    """Words of a text that are a token or more each; none beyond `most` is looked for."""
    return sum(1 for _ in islice(_WORD.finditer(text), most))


def tokens_read(one: Input, fit: Fit, limit: int, most: int) -> int:
    """Tokens that the model reads of an input at least, those of each window counted.

    Args:
        one: of a pair nothing is known, nor of tokens that are given.
        fit: an input that is refused when it is long may be refused: nothing is known.
        limit: tokens that the model reads at once.
        most: tokens of which nothing beyond needs to be known.
    """
    if one.pair is not None or fit.long_text == "error":
        return 0
    if fit.long_text == "truncate":
        return words(one.text, limit)
    count = words(one.text, most)
    moved = max(1, limit - fit.stride)
    return count + fit.stride * max(0, -(-(count - limit) // moved))


def masks(one: Input, fit: Fit, limit: int, mask: str) -> int:
    """Masks of a text at least, among the tokens that the model reads.

    Args:
        one: no pair; of a text that is not ASCII nothing is known.
        fit: without windows; a text that may be refused for its length counts for nothing.
        limit: tokens that the model reads at once.
        mask: how a text has one.
    """
    if fit.side != "right" or not one.text.isascii():
        return 0
    room, found = limit - _SPECIAL, 0
    for part in one.text.split(mask)[:-1]:
        room -= len(part) + 1  # no character of ASCII is more than a token
        if room < 0:
            return found if fit.long_text == "truncate" else 0
        found += 1
    rest = len(one.text) - one.text.rfind(mask) - len(mask)
    return found if fit.long_text == "truncate" or rest <= room else 0
