"""What a text has at least, known before it is tokenised: some µs for what takes ms.

::

    text ──" a"──────> words, each of them a token or more ──> tokens that are read at least
     └────"[MASK]"───> masks among the tokens that stay

So a request that is far too much is refused at once. Where a guess is too high, by a text that is
refused for its own length, the request would have an error in any case.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice

from tokenizers import Tokenizer

from bertd_server.tokenization import windows
from bertd_server.tokenization.reader import Fit, Input

# A blank and a character that no normalisation takes away.
_WORD = re.compile(r"(?:^| )[0-9A-Za-z가-힣]")
_PROBE = "The 3 cats of 가나 saw a b c d 1 2 3 and 다"


class Least:
    """What is known of texts by a tokenizer and its limits. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, max_characters: int) -> None:
        """Know these.

        Args:
            tokenizer: of the model; read only.
            max_tokens: that the model reads at once.
            max_characters: of a text; a longer one is refused, and counts for nothing.
        """
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._max_characters = max_characters

    def read(self, one: Input, fit: Fit, most: int) -> int:
        """Tokens that the model reads of an input at least, those of each window counted.

        Args:
            one: of a pair nothing is known, nor of tokens that are given.
            fit: of what may be refused for its length nothing is known.
            most: tokens of which nothing beyond needs to be known.
        """
        unknown = one.pair is not None or fit.long_text == "error"
        if unknown or len(one.text) > self._max_characters or not self._words_are_tokens:
            return 0
        if fit.long_text == "truncate":
            return words(one.text, min(most, self._max_tokens))
        count = words(one.text, most)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        room = self._max_tokens - special
        if count <= room or room <= fit.stride:
            return count
        number, tokens = windows.sizes(count, special, room, fit.stride)
        return tokens if number <= windows.MOST_WINDOWS else 0

    def masks(self, one: Input, fit: Fit, mask_id: int) -> int:
        """Masks of a text that the model reads at least, which is not read in windows."""
        mask = self._tokenizer.get_added_tokens_decoder().get(mask_id)
        if mask is None or mask.normalized or mask.single_word:
            return 0  # it is not known by its letters alone
        if fit.side != "right" or not one.text.isascii() or len(one.text) > self._max_characters:
            return 0
        *parts, rest = one.text.split(mask.content)
        room = self._max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        found = 0
        for part in parts:
            room -= len(part.strip()) + 1  # no character of ASCII is more than a token
            found += room >= 0
        room -= len(rest.strip())
        return found if fit.long_text == "truncate" or room >= 0 else 0

    @cached_property
    def _words_are_tokens(self) -> bool:
        """Whether the tokenizer splits texts at blanks first, and makes tokens of each word."""
        splitter, normalizer = self._tokenizer.pre_tokenizer, self._tokenizer.normalizer
        if splitter is None:
            return False
        text = _PROBE if normalizer is None else normalizer.normalize_str(_PROBE)
        pieces = [piece for piece, _ in splitter.pre_tokenize_str(text)]
        tokens = len(self._tokenizer.encode(_PROBE, add_special_tokens=False))
        return min(len(pieces), tokens) >= len(_PROBE.split())


def words(text: str, most: int) -> int:
    """Words of a text, each a token or more; beyond `most` none is looked for."""
    return sum(1 for _ in islice(_WORD.finditer(text), most))
