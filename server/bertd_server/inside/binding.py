"""From a function of a model to a method that one class awaits and another waits for.

::

    function(model, …) ──> Reply of each input       OpenModel.embed_each   SyncModel.embed_each
         └── values ─────> value, or the first error OpenModel.embed        SyncModel.embed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from bertd_server.errors import RequestError
from bertd_server.models.model import Model
from bertd_server.tasks.ask import Reply

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ModelFunction = Callable[Concatenate[Model, P], Awaitable[R]]


class Asks(Protocol):
    """What has asynchronous methods: it answers with its model."""

    async def ask(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question."""


class Waits(Protocol):
    """What has methods for threads: it waits for answers."""

    def wait(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question."""


class ModelMethod(Generic[P, R]):
    """A function of a model as a method of what :class:`Asks`, and of what :class:`Waits`."""

    def __init__(self, function: ModelFunction[P, R]) -> None:
        @wraps(function)
        async def asked(face: Asks, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return await face.ask(lambda model: function(model, *args, **kwargs))

        @wraps(function)
        def waited(face: Waits, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return face.wait(lambda model: function(model, *args, **kwargs))

        self._asked = asked
        self._waited = waited

    def __set_name__(self, owner: type, name: str) -> None:
        for function in (self._asked, self._waited):
            function.__name__, function.__qualname__ = name, f"{owner.__qualname__}.{name}"

    @overload
    def __get__(self, face: None, owner: type) -> Callable[..., Any]: ...
    @overload
    def __get__(self, face: Asks, owner: type) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __get__(self, face: Waits, owner: type) -> Callable[P, R]: ...
    def __get__(self, face: Asks | Waits | None, owner: type) -> Callable[..., Any]:
        """The method of the class that has it, bound if it is asked of an object."""
        function: Any = self._waited if hasattr(owner, "wait") else self._asked
        bound: Callable[..., Any] = function.__get__(face, owner)
        return bound


def values(function: ModelFunction[P, list[Reply[T]]]) -> ModelFunction[P, list[T]]:
    """The values of a function's replies; it raises the first error among them."""

    @wraps(function)
    async def settle(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return settled(await function(model, *args, **kwargs))

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
