"""A bulk request as calls that the server takes, and their outcomes back in order.

::

    BulkRequest ──take──> Chunk, places of inputs ──the client's call──> answer(chunk, response)
                   ^                        │                       └──> refuse(chunk, error)
                   └── halves of what was too much, and what is left without the inputs at fault

It makes no call itself: both clients drive it, each in its own way.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from bertd_client.calling.asking import BulkRequest
from bertd_client.errors import BertdError, DeadlineExceeded, InvalidArgument

R = TypeVar("R")

CALL_INPUTS = 256  # what a server takes unless it is configured otherwise
CALL_BYTES = 4_000_000  # most gRPC servers take 4 MiB; bertd's takes 16
CALLS_AT_ONCE = 4  # a server batches across calls; a few keep it from waiting for the next one

# Reasons for which fewer inputs in a call may do: too much for the answer to one call, and more
# than may wait at the server at any time, so that only an idle one would take it.
_TOO_MANY = "TOO_MANY"
_TOO_MUCH_TO_WAIT = ("CALL_TOKENS", "CALL_CHARACTERS", "CALL_MEMORY")

Chunk = Sequence[int]
"""Places of the inputs that one call asks about."""


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """What a call may have."""

    inputs: int
    message_bytes: int


def at_least_one(name: str, value: int) -> int:
    """Check a setting.

    Raises:
        ValueError: it is below 1.
    """
    if value < 1:
        raise ValueError(f"{name} is {value}: it must be at least 1")
    return value


class Work(Generic[R]):
    """The state of one bulk request."""

    def __init__(
        self, request: BulkRequest[R], limits: ChunkLimits, done: Callable[[int], None]
    ) -> None:
        """Begin it.

        Args:
            request: what there is to ask.
            limits: of a call, until the server says that it takes less.
            done: told how many inputs have got their outcome.
        """
        self._request = request
        self._most_inputs = max(1, limits.inputs // request.weight)
        if request.at_once is not None:
            self._most_inputs = min(self._most_inputs, request.at_once)
        self._most_bytes = limits.message_bytes
        self._done = done
        self._again: deque[Chunk] = deque()
        self._outcomes: dict[int, R | BertdError] = {}
        self._askable: list[int] = []
        for place, one in enumerate(request.inputs):
            if isinstance(one, BertdError):
                self._outcomes[place] = one.at(place, request.field)
            else:
                self._askable.append(place)
        self._next = 0
        self._begin = time.monotonic()
        if not request.inputs:  # the server says what is wrong with that
            self._again.append(())
        done(len(self._outcomes))

    def waits(self) -> bool:
        """Whether there is something to take."""
        return bool(self._again) or self._next < len(self._askable)

    def take(self) -> Chunk:
        """The places that the next call is to ask about."""
        if self._again:
            return self._again.popleft()
        begin = end = self._next
        total = 0
        while end < len(self._askable) and end - begin < self._most_inputs:
            total += self._size(self._askable[end])
            if total > self._most_bytes and end > begin:
                break
            end += 1
        self._next = end
        return self._askable[begin:end]

    def remaining(self) -> float | None:
        """Seconds that a call has.

        Raises:
            DeadlineExceeded: none are left.
        """
        timeout = self._request.timeout
        if timeout is None:
            return None
        left = self._begin + timeout - time.monotonic()
        if left <= 0 < timeout:
            raise DeadlineExceeded(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the timeout of {timeout:g} s passed when {len(self._outcomes)} of "
                f"{len(self._request.inputs)} inputs had their answers: allow more time, or ask "
                "about fewer",
            )
        return max(0.0, left)

    def answer(self, chunk: Chunk, response: Any) -> None:
        """Take the outcomes of a call; inputs that were too many for it are to be taken again.

        Raises:
            ServerError: the response is no answer to it.
        """
        asked = {place: index for index, place in enumerate(chunk)}
        beyond = []
        for place, outcome in self._request.read(response, chunk):
            if isinstance(outcome, BertdError):
                if len(chunk) > 1 and self._is_beyond(outcome, asked[place]):
                    beyond.append(place)
                    continue
                outcome = outcome.at(place, self._request.field, asked[place])  # noqa: PLW2901
            self._outcomes[place] = outcome
        if beyond:
            self._halve(chunk, beyond)
        self._done(len(chunk) - len(beyond))

    def refuse(self, chunk: Chunk, error: BertdError) -> None:
        """Make the best of a call that failed.

        Where it had too much, its halves are to be taken. Where it failed because of some inputs,
        those get their errors, and the others are to be taken again.

        Raises:
            BertdError: it failed for another reason.
        """
        if len(chunk) > 1 and self._is_too_much(error):
            self._halve(chunk, chunk)
            return
        at_fault = self._at_fault(chunk, error)
        if not at_fault:
            raise error
        self._outcomes |= at_fault
        self._done(len(at_fault))
        rest = [place for place in chunk if place not in at_fault]
        if rest:
            self._again.append(rest)

    def outcomes(self) -> list[R | BertdError]:
        """What became of each input; without those that the call left out (top_n)."""
        found = [outcome for _, outcome in sorted(self._outcomes.items(), key=lambda one: one[0])]
        return found if self._request.arrange is None else self._request.arrange(found)

    def _size(self, place: int) -> int:
        one = self._request.inputs[place]
        return one[1] + 8 if isinstance(one, tuple) else 0  # its tag and length

    def _halve(self, chunk: Chunk, rest: Chunk) -> None:
        """Ask about what is left of a call in calls of at most half its inputs, and so from now."""
        half = (len(chunk) + 1) // 2
        self._most_inputs = min(self._most_inputs, half)
        self._again.extend(rest[begin : begin + half] for begin in range(0, len(rest), half))

    def _is_too_much(self, error: BertdError) -> bool:
        """Whether fewer inputs may do: the message was too large, or there were too many."""
        if error.reason in _TOO_MUCH_TO_WAIT:
            return True
        if not isinstance(error, InvalidArgument):
            return False
        return error.code is grpc.StatusCode.RESOURCE_EXHAUSTED or (
            error.reason == _TOO_MANY and _names(error, self._request.field)
        )

    def _is_beyond(self, error: BertdError, index: int) -> bool:
        """Whether an input may do in a smaller call: those before it have left no room for it."""
        return error.reason == _TOO_MANY and _names(error, f"{self._request.field}[{index}]")

    def _at_fault(self, chunk: Chunk, error: BertdError) -> dict[int, R | BertdError]:
        """The inputs that a call failed for, each with its error; none if there is more to it."""
        field = self._request.field
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and isinstance(error, InvalidArgument):
            return {place: error.at(place, field, index) for index, place in enumerate(chunk)}
        at_fault: dict[int, R | BertdError] = {}
        for violation in error.violations:
            match = re.match(rf"{field}\[(\d+)\]", violation.field)
            index = int(match[1]) if match else len(chunk)
            if index >= len(chunk):
                return {}
            reason = "" if at_fault else error.reason  # the first one's is that of the call
            own = type(error)(error.code, violation.description, (violation,), reason=reason)
            at_fault.setdefault(chunk[index], own.at(chunk[index], field, index))
        return at_fault


def _names(error: BertdError, field: str) -> bool:
    """Whether the server has refused that very field."""
    return any(violation.field == field for violation in error.violations)
