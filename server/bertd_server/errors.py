"""Errors that a request can meet, each with its wire status.

::

    RequestError                 the base; carries a gRPC status code
      InvalidInput               INVALID_ARGUMENT   names the field and the remedy
                                 reasons: invalid_input, empty, too_long, too_many, out_of_range,
                                 unknown_value, not_unicode, undecodable
      Unauthenticated            UNAUTHENTICATED    no API key, or none that counts
      PermissionDenied           PERMISSION_DENIED  the key, or the address, is not for this call
      UnknownModel               NOT_FOUND
      WrongTask                  FAILED_PRECONDITION
      CannotLoad                 FAILED_PRECONDITION a model of the repository is not in order
      Unsupported                UNIMPLEMENTED      what a protocol has and this server has not
      Overloaded                 RESOURCE_EXHAUSTED too much waits; carries when to retry
      DeadlineMissed             DEADLINE_EXCEEDED  too little time, or it expired in the queue
      Draining                   UNAVAILABLE        the server is going away
      Starting                   UNAVAILABLE        it loads what it will answer with
      NoLane                     UNAVAILABLE        nothing can run a batch at this moment
      EngineFailure              INTERNAL           the model failed on this text alone

They are raised where the trouble is seen and translated once, in ``rpc.status``. Each has a
reason that a caller can switch on.
"""

from __future__ import annotations

from typing import Any

import grpc


class CannotServeError(RuntimeError):
    """The settings cannot be met on this machine; said at start, before anything is served."""


class MisusedError(CannotServeError):
    """A setting, or a file that one names, is wrong: the next start would meet it again."""


class RequestError(Exception):
    """A request, or one text of it, cannot be answered."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = "unknown"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how another process makes it again: of what it has, since arguments differ."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RequestError], args: tuple[Any, ...], state: dict[str, Any]) -> RequestError:
    """An error that was pickled."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidInput(RequestError):
    """The caller sent something that cannot be answered; `field` says where.

    `tokens` is how many tokens the refused text has; 0 where that is not known. `limit` is what was
    exceeded, if it is a number.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        tokens: int = 0,
        reason: str = "invalid_input",
        limit: int | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.tokens = tokens
        self.reason = reason
        self.limit = limit


class Unauthenticated(RequestError):
    """The caller has no API key that counts; reasons: missing_key, unknown_key, expired_key."""

    code = grpc.StatusCode.UNAUTHENTICATED

    def __init__(self, message: str, *, reason: str = "unauthenticated") -> None:
        super().__init__(message)
        self.reason = reason


class PermissionDenied(RequestError):
    """The caller may not make this call; reasons: missing_scope, management_off."""

    code = grpc.StatusCode.PERMISSION_DENIED

    def __init__(self, message: str, *, reason: str = "permission_denied") -> None:
        super().__init__(message)
        self.reason = reason


class UnknownModel(RequestError):
    """No model of that name is served."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "unknown_model"


class WrongTask(RequestError):
    """The model is for another task."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "wrong_task"


class CannotLoad(RequestError):
    """A model of the repository cannot be loaded as it is."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "cannot_load"


class Unsupported(RequestError):
    """A protocol has it, and this server has not."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "unsupported"


class Overloaded(RequestError):
    """There is more work than the call can wait for.

    `reason` names the limit. `retry_after_seconds` is predicted: then the queue has room for such
    a call. `in_vain` says that this very call, with its deadline, would be refused again.
    """

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(
        self, message: str, *, reason: str, retry_after_seconds: float, in_vain: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.in_vain = in_vain


class DeadlineMissed(RequestError):
    """The deadline passes before the text can be computed, on an idle server or in the queue."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "impossible"


class Draining(RequestError):
    """The server is shutting down and takes no new work."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "draining"


class Starting(RequestError):
    """The server loads what it will answer with."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "starting"


class NoLane(RequestError):
    """Every lane has died and none could be replaced yet."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "no_lane"


class EngineFailure(RequestError):
    """The model failed on this text, run alone."""

    code = grpc.StatusCode.INTERNAL
    reason = "engine_failure"
