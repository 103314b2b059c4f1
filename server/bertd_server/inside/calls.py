"""From questions to methods: each is written once, and four faces have it.

::

    question(model, …) ──> Reply of each input        OpenModel.embed_each   SyncModel.embed_each
         └── values ─────> value, or the first error  OpenModel.embed        SyncModel.embed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from bertd.bundle.arrays import Float32Array

from bertd_server.errors import RequestError
from bertd_server.inside import questions
from bertd_server.inside.questions import Ranked
from bertd_server.models.model import Model
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


def asked(question: Question[P, R]) -> Callable[Concatenate[Asks, P], Awaitable[R]]:
    """A question as a method of what :class:`Asks`."""

    @wraps(question)
    async def method(self: Asks, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.ask(lambda model: question(model, *args, **kwargs))

    return method


def waited(question: Question[P, R]) -> Callable[Concatenate[Waits, P], R]:
    """A question as a method of what :class:`Waits`."""

    @wraps(question)
    def method(self: Waits, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.wait(lambda model: question(model, *args, **kwargs))

    return method


def values(question: Question[P, list[Reply[T]]]) -> Question[P, list[T]]:
    """The values of a question's replies; it raises the first error among them."""

    @wraps(question)
    async def settle(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return settled(await question(model, *args, **kwargs))

    return settle


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

    @wraps(question)
    async def settle(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> Float32Array:
        rows = settled(await question(model, *args, **kwargs))
        return np.stack(rows) if rows else np.empty((0, model.manifest.dimensions), np.float32)

    return settle


def ranked(question: Question[P, list[Reply[float]]]) -> Question[P, list[Ranked]]:
    """Documents in the order of their scores: best first, equal ones as given."""

    @wraps(question)
    async def settle(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> list[Ranked]:
        scores = settled(await question(model, *args, **kwargs))
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return [Ranked(place, scores[place]) for place in order]

    return settle


embed = stacked(questions.embed)
embed_tokens = values(questions.embed_tokens)
embed_sparse = values(questions.embed_sparse)
classify = values(questions.classify)
classify_zero_shot = values(questions.classify_zero_shot)
rerank = ranked(questions.score_documents)
tag = values(questions.tag)
answer = values(questions.answer)
fill_mask = values(questions.fill_mask)
tokenize = values(questions.tokenize)
count_tokens = values(questions.count_tokens)
