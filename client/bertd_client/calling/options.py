"""The options of each call of both clients, by keyword.

::

    CallOptions                     model, timeout, progress
      TokenizeOptions               special_tokens
      TaskOptions                   long_text, truncation_side, priority
        ClassifyOptions             top_k, score_function
        ZeroShotOptions             hypothesis_template, multi_label
        FillMaskOptions             top_k
        WindowOptions               stride
          EmbedOptions              prompt_name
          RerankOptions             top_n, score_function
          TagOptions                aggregation, include_outside
          AnswerOptions             top_k, max_answer_tokens, allow_no_answer

Each is optional, and ``None`` is the same as to leave it out. Their words are those of the fields
and values of ``bertd.v1``: ``long_text="truncate"`` is ``LONG_TEXT_POLICY_TRUNCATE``.
"""

from __future__ import annotations

from typing import Literal, TypedDict

LongText = Literal["error", "truncate", "window"]
TruncationSide = Literal["right", "left"]
Priority = Literal["interactive", "bulk"]
ScoreFunction = Literal["softmax", "sigmoid", "none"]
Aggregation = Literal["none", "simple", "first", "average", "max"]


class CallOptions(TypedDict, total=False):
    """Of every call that takes inputs."""

    model: str
    """Name of the model; by default the server's only or default one."""
    timeout: float | None
    """Seconds for all of it, retries and every call it is split into included; no limit by
    default."""
    progress: bool
    """Whether to show how far it is, on standard error if that is a terminal; not by default."""


class TokenizeOptions(CallOptions, total=False):
    """Of ``tokenize``, where they are on by default, and of ``detokenize``, where they are off."""

    special_tokens: bool
    """Whether special tokens, such as [CLS], are given."""


class TaskOptions(CallOptions, total=False):
    """Of every call that a model computes."""

    long_text: LongText
    """What to do with an input longer than the model reads. "error", the default, refuses it;
    "truncate" cuts it; "window" reads it in windows and merges what they say (not for ``classify``,
    ``classify_zero_shot`` and ``fill_mask``)."""
    truncation_side: TruncationSide
    """The end that "truncate" cuts; "right" by default."""
    priority: Priority
    """Which calls it goes before: "bulk" goes after what is "interactive", the default, when the
    server has more than it can do at once."""


class WindowOptions(TaskOptions, total=False):
    """Of the calls that read long texts in windows; all that ``embed_tokens`` takes but prompts."""

    stride: int
    """Tokens that neighbouring windows of "window" share; 0 by default."""


class EmbedOptions(WindowOptions, total=False):
    """Of ``embed`` and ``embed_tokens``."""

    prompt_name: str | None
    """Prompt of the model to put before each text; the model's default one if it is left out, none
    if it is the empty string."""


class ClassifyOptions(TaskOptions, total=False):
    """Of ``classify``."""

    top_k: int
    """How many labels to give, best first; all by default."""
    score_function: ScoreFunction | None
    """How scores come from logits; as the model's config says by default."""


class ZeroShotOptions(TaskOptions, total=False):
    """Of ``classify_zero_shot``."""

    hypothesis_template: str
    """The sentence about a text that a label makes; {} stands for the label. By default
    "This example is {}."."""
    multi_label: bool
    """Whether each label is judged by itself; by default all share one probability."""


class RerankOptions(WindowOptions, total=False):
    """Of ``rerank``."""

    top_n: int
    """How many documents to give, best first; all by default."""
    score_function: Literal["sigmoid", "none"] | None
    """How scores come from logits; as the model says by default."""


class TagOptions(WindowOptions, total=False):
    """Of ``tag``."""

    aggregation: Aggregation
    """How tokens become entities, as in transformers' pipelines; "simple" by default."""
    include_outside: bool
    """Whether to give what is labelled "O", no entity, too."""


class AnswerOptions(WindowOptions, total=False):
    """Of ``answer``."""

    top_k: int
    """How many answers to give, best first; 1 by default, at most 20."""
    max_answer_tokens: int
    """Longest answer, in tokens; 15 by default."""
    allow_no_answer: bool
    """Whether "there is no answer" competes with the spans."""


class FillMaskOptions(TaskOptions, total=False):
    """Of ``fill_mask``."""

    top_k: int
    """How many tokens to give for each mask, best first; 5 by default, at most 1,000."""
