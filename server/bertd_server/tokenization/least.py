"""What a text has at least, known before it is tokenised: some µs for what takes ms.

::

    text ──a word after a blank──> words, each of them a token or more ──> tokens at least
     │                                └──too many, whatever the rest is──> refused, and not read
     └────"[MASK]"───> masks among the tokens that stay

So a request that is far too much is refused at once. Where a guess is too high, by a text that is
refused for its own length, the request would have an error in any case.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput
from bertd_server.system.turns import Turns, give_way
from bertd_server.tokenization import windows
from bertd_server.tokenization.budget import Budget
from bertd_server.tokenization.reader import Fit, Input

# After a blank, or first of all: a character that no normalisation takes away.
_WORD = re.compile(r"(?<![^ ])[0-9A-Za-z가-힣]")
_PROBE = "The 3 cats of 가나 saw a b c d 1 2 3 and 다"
_CHARACTERS_A_TURN = 20_000  # are looked through in a ms
_PART = 2_000  # of them, after which there may be enough words
# What has fewer characters is read as soon as it is looked through.
_FEW_CHARACTERS = 20_000
_MANY = 2**40  # of tokens: more than any request may have


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

    async def foreseen(
        self,
        inputs: Sequence[Input],
        fit: Fit | None,
        reading: Budget,
        answers: Budget,
        token_bytes: int = 0,
    ) -> Sequence[Input]:
        """Inputs of a request; those that are refused whatever a tokenizer says, with the reason.

        Args:
            inputs: of the request.
            fit: what is done with long ones; None where they are tokenised, and nothing is cut.
            reading: of tokens that the model reads, those of each window counted; nothing is spent.
            answers: of the bytes of all answers; nothing is spent.
            token_bytes: of an answer, for each token.

        Raises:
            InvalidInput: they are too much together.
        """
        cut, size = fit is not None and fit.long_text == "truncate", sum(map(_characters, inputs))
        if (cut and not token_bytes) or size <= _FEW_CHARACTERS:
            return inputs
        if fit is None and token_bytes * (size // 2 + len(inputs)) <= answers.limit:
            return inputs  # not even words of one letter would be too much
        most = self._max_tokens
        if fit is None or fit.long_text == "window":
            most = int(min(answers.limit / token_bytes if token_bytes else _MANY, _MANY)) + 1
        reading, answers, turns = reading.at_least(), answers.at_least(), Turns(_CHARACTERS_A_TURN)
        found = []
        for one in inputs:
            count = await self._words(one, most, turns)
            refused = self._refused(count, one, fit)
            if refused is None:
                once, read = (count, 0) if fit is None else self.read(count, fit)
                refused = reading.spend(read, one) or answers.spend(token_bytes * once, one)
            found.append(one if refused is None else replace(one, refused=refused))
        return found

    def read(self, count: int, fit: Fit) -> tuple[int, int]:
        """Tokens that the model reads of a text at least, and those of each window counted.

        Args:
            count: words of the text.
            fit: of what may be refused for its length nothing is known.
        """
        if fit.long_text == "error":
            return 0, 0
        if fit.long_text == "truncate":
            once = min(count, self._max_tokens)
            return once, once
        room = self._room()
        if count <= room or room <= fit.stride:
            return count, count
        number, tokens = windows.sizes(count, self._max_tokens - room, room, fit.stride)
        return (count, tokens) if number <= windows.MOST_WINDOWS else (0, 0)

    def masks(self, one: Input, fit: Fit, mask_id: int) -> int:
        """Masks of a text that the model reads at least, which is not read in windows."""
        mask = self._tokenizer.get_added_tokens_decoder().get(mask_id)
        if mask is None or mask.normalized or mask.single_word:
            return 0  # it is not known by its letters alone
        if fit.side != "right" or not one.text.isascii() or len(one.text) > self._max_characters:
            return 0
        *parts, rest = one.text.split(mask.content)
        room, found = self._room(), 0
        for part in parts:
            room -= len(part.strip()) + 1  # no character of ASCII is more than a token
            found += room >= 0
        room -= len(rest.strip())
        return found if fit.long_text == "truncate" or room >= 0 else 0

    def _room(self) -> int:
        """Tokens of a text that the model reads at once, beside special ones."""
        return self._max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False)

    async def _words(self, one: Input, most: int, turns: Turns) -> int:
        """Words of an input, each a token or more, about `most` of them; of pairs none is known."""
        size = len(one.text)
        if one.pair is not None or size > self._max_characters or not self._words_are_tokens:
            return 0
        found = 0
        for begin in range(0, size, _PART):
            found += words(one.text, begin, begin + _PART)
            if turns.over(min(size - begin, _PART)):
                await give_way()
            if found >= most:
                break
        return found

    def _refused(self, count: int, one: Input, fit: Fit | None) -> InvalidInput | None:
        """Why a text with so many words is refused for its length; None if that is not known."""
        if fit is None or count <= (room := self._room()):
            return None
        total = count + self._max_tokens - room
        return windows.unfit(total, count, one, fit, self._max_tokens, said="at least ")

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


def _characters(one: Input) -> int:
    return one.characters


def words(text: str, begin: int = 0, end: int = sys.maxsize) -> int:
    """Words that begin in a stretch of a text."""
    return len(_WORD.findall(text, begin, end))
