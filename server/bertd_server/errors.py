"""Errors that a request can meet, each with its wire status.

::

    RequestError                 the base; carries a gRPC status code
      InvalidInput               INVALID_ARGUMENT   names the field and the remedy
      UnknownModel               NOT_FOUND
      Overloaded                 RESOURCE_EXHAUSTED the queue is full
      DeadlineMissed             DEADLINE_EXCEEDED  it expired before it cost anything
      Draining                   UNAVAILABLE        the server is going away
      EngineFailure              INTERNAL           the model failed on this text alone

They are raised where the trouble is seen and translated once, in ``services.status``.
"""

from __future__ import annotations

import grpc


class CannotServeError(RuntimeError):
    """The settings cannot be met on this machine; said at start, before anything listens."""


class RequestError(Exception):
    """A request, or one text of it, cannot be answered."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(RequestError):
    """The caller sent something that cannot be answered; `field` says where.

    `tokens` is how many tokens the refused text has; 0 where that is not known.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, *, field: str = "", tokens: int = 0) -> None:
        super().__init__(message, field=field)
        self.tokens = tokens


class UnknownModel(RequestError):
    """No model of that name is served."""

    code = grpc.StatusCode.NOT_FOUND


class Overloaded(RequestError):
    """The queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineMissed(RequestError):
    """The deadline passed while the text waited."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Draining(RequestError):
    """The server is shutting down and takes no new work."""

    code = grpc.StatusCode.UNAVAILABLE


class EngineFailure(RequestError):
    """The model failed on this text, run alone."""

    code = grpc.StatusCode.INTERNAL
