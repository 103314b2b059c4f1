"""Texts and pairs of texts to what the model reads: one sequence each, or several windows.

::

    text, or pair ──tokenizer──> tokens ──fits──────────> one window
                                   └─────too long──Fit──> refused | cut | windows that overlap

The tokenizer is read-only after loading: truncation and padding are switched off in it and done
here, so that threads share no mutable state.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
from bertd import bundle
from bertd.bundle.arrays import Int64Array
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.tokenization import prompts, windows
from bertd_server.tokenization.budget import TOKEN_BYTES, Budget, token_budget
from bertd_server.tokenization.details import Details, details_of
from bertd_server.tokenization.pretokenized import Pretokenized
from bertd_server.tokenization.refusals import empty, unreadable
from bertd_server.tokenization.truncation import CutSide

LongText = Literal["error", "truncate", "window"]

T = TypeVar("T")


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
        refused: why it is not read at all, where that is known before.
    """

    text: str
    pair: str | None = None
    field: str = "text"
    pair_field: str = "text_pair"
    tokens: Pretokenized | None = None
    refused: InvalidInput | None = None

    @property
    def characters(self) -> int:
        """That are to be read, of both texts; tokens count as one each."""
        if self.refused is not None:
            return 0
        if self.tokens is not None:
            return len(self.tokens)
        return len(self.text) + len(self.pair or "")


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once: `sequence`, and `places` of its tokens among all that are read.

    Both have one entry per token, special tokens included. Of an input that is cut, what is cut has
    no place; of one in several windows every token has one.
    """

    sequence: TokenSequence
    places: Int64Array


@dataclass(frozen=True, slots=True)
class Reading:
    """An input as the model reads it.

    Attributes:
        windows: at least one.
        tokens: of the whole input.
        details: of the tokens that are read, by place, where offsets were asked for.
        source: the text, of a pair the first one, with its prompt, where offsets were asked for.
    """

    windows: tuple[Window, ...]
    tokens: int
    details: Details | None
    source: str

    @property
    def encoding(self) -> Details:
        """Of the tokens that are read: its entry n is the token whose place in windows is n.

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
        return len(self._sizes) - 1

    @cached_property
    def _sizes(self) -> NDArray[np.int32]:
        """Bytes of each token as the vocabulary writes it, int32 `[largest id + 1]`."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        sizes = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int32)
        for token, id_ in vocabulary.items():
            sizes[id_] = len(token.encode(errors="replace"))
        return sizes

    def written_bytes(self, ids: Sequence[int]) -> int:
        """Bytes of UTF-8 that token ids are as a text, about; those that no token has are none."""
        known = np.array(ids, np.int64)
        return int(self._sizes[known[known < len(self._sizes)]].sum())

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
        self,
        inputs: Sequence[Input],
        fit: Fit,
        *,
        prompt: str = "",
        offsets: bool = False,
        budget: Budget | None = None,
    ) -> list[Reading | InvalidInput]:
        """Read inputs, each with its own outcome, in order.

        Args:
            inputs: texts and pairs.
            fit: what to do with long ones.
            prompt: put before each text.
            offsets: whether readings shall have details, with code points of prompt and text.
            budget: of their request, spent before windows are built; None for no limit.

        Raises:
            InvalidInput: together they are too much for a request.
        """
        count = 0
        if prompt and not self._pools_prompt:
            count = prompts.tokens_of(self.tokenizer, prompt, self.max_tokens)
        asked = _Asked(fit, prompt, count, offsets, budget or token_budget(0))
        settled = [
            self.refusal(one) if one.tokens is None else _given(one, one.tokens, asked)
            for one in inputs
        ]
        encodings = self._encodings(inputs, settled, prompt, offsets=offsets)
        return [
            known or self._read(encodings.pop(), one, asked)
            for one, known in zip(inputs, settled, strict=True)
        ]

    def refusal(self, one: Input) -> InvalidInput | None:
        """Why an input cannot be encoded; None if it can."""
        return one.refused or unreadable(one, self._max_characters, self.max_tokens)

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

    def details(
        self, inputs: Sequence[Input], *, special: bool, budget: Budget
    ) -> list[Details | InvalidInput]:
        """Tokenise inputs, none cut, each with its own outcome, in order.

        Args:
            inputs: texts and pairs.
            special: whether special tokens are added.
            budget: of bytes that an answer with a message for each token has.

        Raises:
            InvalidInput: there are too many tokens for an answer.
        """

        def known(encoding: Encoding, one: Input) -> Details | InvalidInput:
            refused = budget.spend(TOKEN_BYTES * len(encoding), one)
            return details_of(encoding) if refused is None else refused

        return self._each(inputs, known, offsets=True, special=special)

    def counts(self, inputs: Sequence[Input]) -> list[int | InvalidInput]:
        """Tokens of inputs, special ones included, none cut."""
        return self._each(inputs, lambda encoding, _: len(encoding), offsets=False)

    def _each(
        self,
        inputs: Sequence[Input],
        make: Callable[[Encoding, Input], T],
        *,
        offsets: bool,
        special: bool = True,
    ) -> list[T | InvalidInput]:
        """What is made of each encoding, which then ends, and why not of the other inputs."""
        refused = list(map(self.refusal, inputs))
        encodings = self._encodings(inputs, refused, offsets=offsets, special=special)
        return [why or make(encodings.pop(), one) for one, why in zip(inputs, refused, strict=True)]

    def _encodings(
        self,
        inputs: Sequence[Input],
        settled: Sequence[object | None],
        prompt: str = "",
        *,
        offsets: bool,
        special: bool = True,
    ) -> list[Encoding]:
        """Encodings of inputs that are not settled, the first one last: popped, each ends there."""
        open_ = [one for one, known in zip(inputs, settled, strict=True) if known is None]
        return self.encode(open_, prompt, offsets=offsets, special=special)[::-1]

    def _read(self, encoding: Encoding, one: Input, asked: _Asked) -> Reading | InvalidInput:
        """An input by its encoding, nothing of which is kept."""
        total = len(encoding)
        if not (asked.fit.blank and total) and (nothing := empty(encoding, one)) is not None:
            return nothing
        plan = windows.plan(encoding, one, asked.fit, self.max_tokens)
        if isinstance(plan, InvalidInput):
            return _counted(plan, total)
        if (refused := asked.budget.spend(plan.tokens, one)) is not None:
            return _counted(refused, total)
        ids = np.array(encoding.ids, np.int64)
        types = np.zeros(total, np.int64)
        if self._token_types > 1:
            types = np.array(encoding.type_ids, np.int64)
        found, kept = [], None
        if plan.tokens == total and plan.windows == 1 and not asked.prompt_tokens:
            found.append(Window(TokenSequence(ids, types), np.arange(total)))
        for places in plan.places() if not found else ():
            leading = prompts.leading(places, asked.prompt_tokens)
            if leading == len(places):
                return prompts.nothing_left(one.field, total)
            sequence = TokenSequence(ids[places], types[places], leading)
            if len(places) < total and plan.windows == 1:
                kept, places = places, np.arange(len(places))  # noqa: PLW2901 - what is cut has none
            found.append(Window(sequence, places))
        details = details_of(encoding, kept) if asked.offsets else None
        source = asked.prompt + one.text if asked.offsets else ""
        return Reading(tuple(found), total, details, source)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a request wants its inputs read; `prompt_tokens` are not pooled."""

    fit: Fit
    prompt: str
    prompt_tokens: int
    offsets: bool
    budget: Budget


def _given(one: Input, tokens: Pretokenized, asked: _Asked) -> Reading | InvalidInput:
    """Tokens that need no tokenizer; what they say is written only for who reads it."""
    count = len(tokens)
    refused = asked.budget.spend(count, one)
    if refused is not None:
        return _counted(refused, count)
    window = Window(tokens.sequence, np.arange(count))
    if not asked.offsets:
        return Reading((window,), count, None, "")
    return Reading((window,), count, tokens.details, tokens.source)


def _counted(refused: InvalidInput, tokens: int) -> InvalidInput:
    """A refusal that says how many tokens the input has."""
    refused.tokens = tokens
    return refused
