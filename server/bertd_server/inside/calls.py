"""From questions to methods: each is written once, and four faces have it.

::

    question(model, …) ──> Reply of each input        OpenModel.embed_each   SyncModel.embed_each
         └── values ─────> value, or the first error  OpenModel.embed        SyncModel.embed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

import numpy as np

from bertd_server.engine import Float32Array
from bertd_server.errors import RequestError
from bertd_server.inside import questions
from bertd_server.inside.questions import Ranked
from bertd_server.model import Model
from bertd_server.tasks.ask import Reply

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Question = Callable[Concatenate[Model, P], Awaitable[R]]


class Asks(Protocol):
    """What has asynchronous methods: it answers questions with its model."""

    async def ask(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question."""


class Waits(Protocol):
    """What has methods for threads: it waits for answers."""

    def wait(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question."""


class Asked(Generic[P, R]):
    """A question as a method of what :class:`Asks`."""

    def __init__(self, question: Question[P, R], doc: str = "") -> None:
        self._question = question
        self.__doc__ = doc or question.__doc__
        self.__wrapped__ = question  # for the signature in help()

    @overload
    def __get__(self, one: None, owner: type) -> Self: ...

    @overload
    def __get__(self, one: Asks, owner: type) -> Callable[P, Awaitable[R]]: ...

    def __get__(self, one: Asks | None, owner: type) -> Any:
        """The method of one model."""
        if one is None:
            return self

        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return await one.ask(lambda model: self._question(model, *args, **kwargs))

        return method


class Waited(Generic[P, R]):
    """A question as a method of what :class:`Waits`."""

    def __init__(self, asked: Asked[P, R]) -> None:
        self._question: Question[P, R] = asked.__wrapped__
        self.__doc__ = asked.__doc__
        self.__wrapped__ = asked.__wrapped__

    @overload
    def __get__(self, one: None, owner: type) -> Self: ...

    @overload
    def __get__(self, one: Waits, owner: type) -> Callable[P, R]: ...

    def __get__(self, one: Waits | None, owner: type) -> Any:
        """The method of one model."""
        if one is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return one.wait(lambda model: self._question(model, *args, **kwargs))

        return method


def values(question: Question[P, list[Reply[T]]]) -> Question[P, list[T]]:
    """The values of a question's replies; it raises the first error among them."""

    async def asked(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return settled(await question(model, *args, **kwargs))

    asked.__doc__ = question.__doc__
    return asked


def settled(replies: Sequence[Reply[T]]) -> list[T]:
    """The values of replies.

    Raises:
        RequestError: the first one among their outcomes.
    """
    found = []
    for reply in replies:
        if isinstance(reply.outcome, RequestError):
            raise reply.outcome
        found.append(reply.outcome)
    return found


def stacked(
    question: Question[P, list[Reply[Float32Array]]],
) -> Question[P, Float32Array]:
    """Vectors as the rows of an array `[texts, dimensions]`; it raises the first error."""

    async def asked(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> Float32Array:
        rows = settled(await question(model, *args, **kwargs))
        return np.stack(rows) if rows else np.empty((0, model.manifest.dimensions), np.float32)

    asked.__doc__ = question.__doc__
    return asked


def ranked(question: Question[P, list[Reply[float]]]) -> Question[P, list[Ranked]]:
    """Documents in the order of their scores: best first, equal ones as given."""

    async def asked(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> list[Ranked]:
        scores = settled(await question(model, *args, **kwargs))
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return [Ranked(place, scores[place]) for place in order]

    asked.__doc__ = question.__doc__
    return asked


EMBED = Asked(stacked(questions.embed), "Compute one vector per text: float32 `[texts, dims]`.")
EMBED_EACH = Asked(questions.embed)
EMBED_TOKENS = Asked(values(questions.embed_tokens))
EMBED_TOKENS_EACH = Asked(questions.embed_tokens)
EMBED_SPARSE = Asked(values(questions.embed_sparse))
EMBED_SPARSE_EACH = Asked(questions.embed_sparse)
CLASSIFY = Asked(values(questions.classify))
CLASSIFY_EACH = Asked(questions.classify)
CLASSIFY_ZERO_SHOT = Asked(values(questions.classify_zero_shot))
CLASSIFY_ZERO_SHOT_EACH = Asked(questions.classify_zero_shot)
RERANK = Asked(
    ranked(questions.score_documents),
    "Order documents by relevance to a query: best first, equal ones as given.",
)
RERANK_EACH = Asked(questions.score_documents)
TAG = Asked(values(questions.tag))
TAG_EACH = Asked(questions.tag)
ANSWER = Asked(values(questions.answer))
ANSWER_EACH = Asked(questions.answer)
FILL_MASK = Asked(values(questions.fill_mask))
FILL_MASK_EACH = Asked(questions.fill_mask)
TOKENIZE = Asked(values(questions.tokenize))
TOKENIZE_EACH = Asked(questions.tokenize)
COUNT_TOKENS = Asked(values(questions.count_tokens))
COUNT_TOKENS_EACH = Asked(questions.count_tokens)
DETOKENIZE = Asked(questions.detokenize)
