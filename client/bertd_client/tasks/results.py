"""What the calls of both clients give: plain values that know no protocol.

::

    Answered        how the answer came about: tokens, timings, batch
      Embedding, TokenEmbeddings, Classification, Ranked, Tagging, Answers, Filling
    Stretch         a part of a text: text[start:end], and the same in bytes of UTF-8
      Token, Entity, Span, Mask
    LabelScore, Candidate, ModelInfo
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a text, ends exclusive. Empty, with zeros, for what has no place in a text."""

    start: int
    """First Unicode code point, so that ``text[start:end]`` is it."""
    end: int
    """Code point after the last one."""
    start_byte: int
    """The same in bytes of the text's UTF-8."""
    end_byte: int
    """The same in bytes of the text's UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Stretch):
    """A token and where it stands in its text."""

    id: int
    """Its id in the vocabulary."""
    token: str
    """As the vocabulary writes it."""
    special: bool
    """Whether the tokenizer added it, such as [CLS]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity(Stretch):
    """An entity, or a token with its label where nothing is aggregated."""

    label: str
    """Such as "PER", or "B-PER" where nothing is aggregated."""
    score: float
    """Probability of the label."""
    text: str
    """That part of the text."""
    word: str
    """The tokens written together, as the tokenizer's decoder does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Stretch):
    """An answer and where it stands in the context."""

    text: str
    """That part of the context; empty if there is no answer."""
    score: float
    """Probability among all spans that were allowed."""
    no_answer: bool
    """Whether this says that the context holds no answer."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that fits a mask."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """The token as text."""
    score: float
    """Its probability."""
    sequence: str
    """The whole text with this token in place of this mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Stretch):
    """A mask and what fits it."""

    candidates: tuple[Candidate, ...]
    """Best first."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its score."""

    label: str
    """As the model's config or the call names it."""
    score: float
    """A probability, or the value itself for a regression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How the answer to one input came about."""

    tokens: int
    """Tokens that the model read, special tokens and prompt included."""
    truncated_tokens: int
    """Tokens that were cut off; zero unless ``long_text="truncate"``."""
    windows: int
    """Windows in which they were read; one unless ``long_text="window"``."""
    tokenize_s: float
    """Seconds of turning the call's texts into tokens."""
    queue_s: float
    """Seconds of waiting for a lane; zero if the answer came from the server's cache."""
    compute_s: float
    """Seconds of running the batch; zero likewise."""
    total_s: float
    """Seconds from the call's arrival at the server to the last of its answers."""
    batch_sequences: int
    """Texts in the batch, those of other calls included; zero if it came from the cache."""
    batch_tokens: int
    """Tokens in the batch; zero likewise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Answered):
    """The vector of one text."""

    vector: NDArray[np.float32]
    """The embedding, one-dimensional."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenEmbeddings(Answered):
    """The vectors of one text's tokens."""

    vectors: NDArray[np.float32]
    """Of shape (tokens, dimensions), special tokens included."""
    text_tokens: tuple[Token, ...]
    """The tokens, one for each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Answered):
    """The labels of one text or pair."""

    labels: tuple[LabelScore, ...]
    """Best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Answered):
    """A document with its place in the order."""

    index: int
    """Which of the call's documents, from 0."""
    score: float
    """The higher the more relevant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging(Answered):
    """What was found in one text."""

    entities: tuple[Entity, ...]
    """In the order of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers(Answered):
    """The answers to one question."""

    spans: tuple[Span, ...]
    """Best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling(Answered):
    """What fits the masks of one text."""

    masks: tuple[Mask, ...]
    """In the order of the text."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the server describes it."""

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    dimensions: int
    max_tokens: int
    pooling: tuple[str, ...]
    normalized: bool
    prompts: Mapping[str, str]
    default_prompt_name: str
    graph_sha256: str
    labels: tuple[str, ...]
    vocab_size: int
    mask_token: str
