"""Texts and pairs of texts to what the model reads: one sequence each, or several windows.

::

    text, or pair ──tokenizer──> tokens ──fits──────────> one window
                                   └─────too long──Fit──> refused | cut | windows that overlap

The tokenizer is read-only after loading: truncation and padding are switched off in it and done
here, so that threads share no mutable state.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Int64Array
from tokenizers import Encoding, Tokenizer

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.tokenization import prompts
from bertd_server.tokenization.pretokenized import Pretokenized
from bertd_server.tokenization.truncation import (
    CutSide,
    cut,
    longest_first,
    overlapping,
    stretch,
)

LongText = Literal["error", "truncate", "window"]

_MOST_WINDOWS = 1_000  # of an input: a large stride would make one of nearly every token
_FIRST, _SECOND = 0, 1  # sequence ids of the texts of a pair


@dataclass(frozen=True, slots=True)
class Fit:
    """What to do with an input that has more tokens than the model reads.

    Attributes:
        long_text: refuse it, cut it, or read it in windows.
        side: the end that is cut.
        stride: tokens that neighbouring windows share.
        first_only: of a pair the first text alone is cut.
        second_only: of a pair the second text alone is cut; without either the longer one, until
            both fit. Windows always go over the second.
        blank: whether a text without a token, such as a space, is read too, as its special tokens
            alone; else it is refused.
        remedy: how the caller's protocol asks for truncation.
    """

    long_text: LongText = "error"
    side: CutSide = "right"
    stride: int = 0
    first_only: bool = False
    second_only: bool = False
    blank: bool = False
    remedy: str = "long_text = LONG_TEXT_POLICY_TRUNCATE"


FIT = Fit()


@dataclass(frozen=True, slots=True)
class Input:
    """A text or a pair, and what its parts are called in the request.

    Attributes:
        text: empty if there are tokens.
        pair: the second text, if there is one.
        field: what the text, or the tokens, are called.
        pair_field: what the second text is called.
        tokens: of a caller who has tokenised it; at most as many as the model reads.
    """

    text: str
    pair: str | None = None
    field: str = "text"
    pair_field: str = "text_pair"
    tokens: Pretokenized | None = None

    @property
    def characters(self) -> int:
        """Of both texts; tokens count as one each."""
        if self.tokens is not None:
            return len(self.tokens)
        return len(self.text) + len(self.pair or "")


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once: `sequence`, and `places` of its tokens in the whole input.

    Both have one entry per token, special tokens included.
    """

    sequence: TokenSequence
    places: Int64Array


@dataclass(frozen=True, slots=True)
class Reading:
    """An input as the model reads it.

    Attributes:
        windows: at least one.
        tokens: of the whole input.
        details: the encoding of the whole input, where offsets were asked for.
        source: the text, of a pair the first one, with its prompt.
    """

    windows: tuple[Window, ...]
    tokens: int
    details: Encoding | Pretokenized | None
    source: str

    @property
    def encoding(self) -> Encoding | Pretokenized:
        """Of the whole input, with offsets.

        Raises:
            ValueError: they were not asked for.
        """
        if self.details is None:
            raise ValueError("the input was read without offsets")
        return self.details

    @property
    def read(self) -> int:
        """Tokens that the model reads, those in several windows once."""
        if len(self.windows) == 1:
            return len(self.windows[0].sequence)
        return self.tokens


def texts_of(texts: Sequence[str], field: str = "texts") -> list[Input]:
    """Texts as inputs, by their index in a field."""
    return [Input(text, field=f"{field}[{number}]") for number, text in enumerate(texts)]


class Reader:
    """Reads with a bundle's tokenizer. Threads may share it."""

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int,
        token_types: int,
        max_characters: int = sys.maxsize,
        pools_prompt: bool = True,
    ) -> None:
        """Load a tokenizer.

        Args:
            path: of a `tokenizer.json`.
            max_tokens: that a window may have, special tokens included.
            token_types: that a text is read with; with 1, all are 0.
            max_characters: of a text; a longer one is refused before it is encoded. What is too
                long is cut after encoding, so that without a limit one text can fill the memory.
            pools_prompt: whether pooling counts the tokens of a prompt.
        """
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.max_tokens = max_tokens
        self._token_types = token_types
        self._max_characters = max_characters
        self._pools_prompt = pools_prompt

    @classmethod
    def of(cls, folder: Path, manifest: bundle.Manifest, max_characters: int = sys.maxsize) -> Self:
        """Read with the tokenizer of a bundle.

        Raises:
            bundle.BundleError: the file holds none.
        """
        path = folder / bundle.TOKENIZER_NAME
        try:
            return cls(
                path,
                max_tokens=manifest.max_tokens,
                token_types=manifest.type_vocab_size if manifest.tokenizer.token_types else 1,
                max_characters=max_characters,
                pools_prompt=manifest.include_prompt,
            )
        except Exception as error:  # tokenizers has no type of its own
            raise bundle.BundleError(
                f"{path} holds no tokenizer ({error}): export the model again"
            ) from error

    @cached_property
    def largest_id(self) -> int:
        """The largest id of a token that the tokenizer makes; -1 where it makes none."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def sequences(self, texts: Sequence[str]) -> list[TokenSequence]:
        """The sequences of texts, none cut, for an engine without a scheduler.

        Raises:
            InvalidInput: one cannot be read.
        """
        outcomes = self(texts_of(texts), FIT)
        for outcome in outcomes:
            if isinstance(outcome, InvalidInput):
                raise outcome
        return [one.windows[0].sequence for one in outcomes if isinstance(one, Reading)]

    def __call__(
        self, inputs: Sequence[Input], fit: Fit, *, prompt: str = "", offsets: bool = False
    ) -> list[Reading | InvalidInput]:
        """Read inputs, each with its own outcome, in order.

        Args:
            inputs: texts and pairs.
            fit: what to do with long ones.
            prompt: put before each text.
            offsets: whether the encodings shall have them, in code points of prompt and text.
        """
        settled: dict[int, Reading | InvalidInput] = {}
        good: list[Input] = []
        for place, one in enumerate(inputs):
            known = self.refusal(one) if one.tokens is None else _pretokenized(one.tokens, offsets)
            if known is None:
                good.append(one)
            else:
                settled[place] = known
        encodings = iter(self.encode(good, prompt, offsets=offsets))
        found = [
            settled.get(place) or self._read(next(encodings), one, fit, prompt, offsets=offsets)
            for place, one in enumerate(inputs)
        ]
        if self._pools_prompt or not prompt:
            return found
        count = prompts.tokens_of(self.tokenizer, prompt, self.max_tokens)
        return [prompts.left_out(*each, count) for each in zip(found, inputs, strict=True)]

    def refusal(self, one: Input) -> InvalidInput | None:
        """Why an input cannot be encoded; None if it can."""
        for field, text in ((one.field, one.text), (one.pair_field, one.pair)):
            if text is None:
                continue
            if len(text) > self._max_characters:
                return InvalidInput(
                    f"{field} has {len(text)} characters, the server reads at most "
                    f"{self._max_characters} of a text: send its beginning alone (the model reads "
                    f"at most {self.max_tokens} tokens at once), or have the server started with a "
                    "larger --max-text-characters",
                    field=field,
                    reason="too_long",
                    limit=self._max_characters,
                )
            try:
                text.encode()
            except UnicodeEncodeError:
                return InvalidInput(
                    f"{field} holds a lone surrogate, which is no Unicode character: "
                    "send valid UTF-8",
                    field=field,
                    reason="not_unicode",
                )
        return None

    def encode(
        self,
        inputs: Sequence[Input],
        prompt: str = "",
        *,
        offsets: bool = True,
        special: bool = True,
    ) -> list[Encoding]:
        """Tokenise inputs that :meth:`refusal` does not refuse, none cut."""
        parts = [
            prompt + one.text if one.pair is None else (prompt + one.text, one.pair)
            for one in inputs
        ]
        encode = self.tokenizer.encode_batch if offsets else self.tokenizer.encode_batch_fast
        encodings: list[Encoding] = encode(parts, add_special_tokens=special) if parts else []
        return encodings

    def _read(
        self, encoding: Encoding, one: Input, fit: Fit, prompt: str, *, offsets: bool
    ) -> Reading | InvalidInput:
        total = len(encoding)
        empty = None if fit.blank and total else _empty(encoding, one)
        if empty is not None:
            return InvalidInput(
                f"{empty} is empty: send a text with at least one token",
                field=empty,
                tokens=total,
                reason="empty",
            )
        # What is cut may be much longer than what is read: it is not kept for nothing.
        details = encoding if offsets else None
        ids = np.array(encoding.ids, np.int64)
        if self._token_types == 1:
            types = np.zeros(total, np.int64)
        else:
            types = np.array(encoding.type_ids, np.int64)
        if total <= self.max_tokens:
            window = Window(TokenSequence(ids, types), np.arange(total))
            return Reading((window,), total, details, prompt + one.text)
        try:
            kept = list(self._kept(encoding, one, fit))
        except InvalidInput as refused:
            refused.tokens = total
            return refused
        windows = tuple(Window(TokenSequence(ids[k], types[k]), k) for k in kept)
        return Reading(windows, total, details, prompt + one.text)

    def _kept(self, encoding: Encoding, one: Input, fit: Fit) -> Iterator[Int64Array]:
        """Places of the tokens of each window of a long input."""
        total, limit = len(encoding), self.max_tokens
        over_first = one.pair is None or (fit.first_only and fit.long_text != "window")
        if fit.long_text == "error":
            raise InvalidInput(
                f"{_named(one)} {total} tokens, the model reads at most {limit}: shorten it, "
                f"or ask for truncation ({fit.remedy})",
                field=one.field if over_first else one.pair_field,
                reason="too_long",
                limit=limit,
            )
        first, second = stretch(encoding, _FIRST), stretch(encoding, _SECOND)
        every = np.arange(total)
        if fit.long_text == "truncate" and not (over_first or fit.second_only):
            room = limit - (total - len(first) - len(second))
            a, b = longest_first(len(first), len(second), room)
            dropped = [*cut(first, a, fit.side), *cut(second, b, fit.side)]
            yield np.delete(every, dropped)
            return
        moving = first if over_first else second
        room = limit - (total - len(moving))
        if room <= (fit.stride if fit.long_text == "window" else 0):
            short, rest = (one.field, one.pair_field) if over_first else (one.pair_field, one.field)
            raise self._no_room(short, rest if one.pair is not None else "", room, fit)
        if fit.long_text == "truncate":
            yield np.delete(every, list(cut(moving, room, fit.side)))
            return
        count = -(-(len(moving) - fit.stride) // (room - fit.stride))
        if count > _MOST_WINDOWS:
            raise InvalidInput(
                f"{_named(one)} {total} tokens: {count} windows with a stride of {fit.stride}, and "
                f"an input may have {_MOST_WINDOWS}: make stride smaller, or shorten the text",
                field="stride",
                reason="too_many",
                limit=_MOST_WINDOWS,
            )
        for part in overlapping(moving, room, fit.stride):
            yield np.r_[0 : moving.start, part.start : part.stop, moving.stop : total]

    def _no_room(self, short: str, rest: str, room: int, fit: Fit) -> InvalidInput:
        """Why the field `short` cannot be cut, or read in windows, beside the field `rest`."""
        if room <= 0:
            return InvalidInput(
                f"{' and '.join(filter(None, (rest, 'the special tokens')))} have "
                f"{self.max_tokens - room} tokens, which leaves no room for {short}, as the model "
                f"reads at most {self.max_tokens}: {f'shorten {rest}' if rest else 'use another'}",
                field=rest or short,
                reason="too_long",
                limit=self.max_tokens,
            )
        return InvalidInput(
            f"stride is {fit.stride} and a window has room for {room} tokens of {short}: "
            "make stride smaller",
            field="stride",
            reason="out_of_range",
            limit=room - 1,
        )


def _pretokenized(tokens: Pretokenized, offsets: bool) -> Reading:
    """Tokens that need no tokenizer; what they say is written only for who reads it."""
    window = Window(tokens.sequence, np.arange(len(tokens)))
    return Reading((window,), len(tokens), tokens, tokens.source if offsets else "")


def _named(one: Input) -> str:
    """What has too many tokens, with its verb."""
    return f"{one.field} has" if one.pair is None else f"{one.field} and {one.pair_field} have"


def _empty(encoding: Encoding, one: Input) -> str | None:
    """The field of a text without a token; None if each has some."""
    if not one.text.strip():
        return one.field
    if one.pair is not None and not one.pair.strip():
        return one.pair_field
    if all(encoding.special_tokens_mask):
        return one.field
    if one.pair is None:
        return None
    read = set(encoding.sequence_ids)
    if _FIRST not in read:
        return one.field
    return one.pair_field if _SECOND not in read else None
