"""From inputs to replies: what all tasks share.

A task names the outputs that it wants and says what they mean for one input; :func:`ask` does the
rest, and gives each input a reply of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from bertd_server.engine.engine import Float32Array
from bertd_server.errors import DeadlineMissed, InvalidInput, RequestError, WrongTask
from bertd_server.models.model import Model
from bertd_server.scheduling.flights import Answer
from bertd_server.scheduling.scheduler import INTERACTIVE
from bertd_server.system.call_metrics import CURRENT, Stages
from bertd_server.tokenization.reading import Fit, Input, Reading

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Outputs = Mapping[str, Float32Array]
_Landed = tuple[Reading | InvalidInput, list[Answer | RequestError]]

# What a task does with the outputs of a call holds the event loop up for some ms if it is worth
# more than this: bytes of outputs where they are merely copied. What looks at each token, or sorts
# a vocabulary, costs more: so many bytes for each token, and each byte so many times.
_INLINE_BYTES = 262_144
_TOKEN_BYTES = 512
_SORTED = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """How long a caller waits, and how urgently.

    Make it as the request arrives: whatever is asked for it, in turn or at once, shares the time.

    Attributes:
        deadline: on the monotonic clock; then the answers are no longer wanted.
        priority: class of the call: lower ones go first.
        arrived: when the request came, on the same clock; infinite where nobody has noted it.
    """

    deadline: float = math.inf
    priority: int = INTERACTIVE
    arrived: float = math.inf

    @classmethod
    def within(cls, seconds: float, priority: int = INTERACTIVE) -> Caller:
        """One who waits so many seconds from now."""
        now = time.monotonic()
        return cls(now + seconds, priority, now)


CALLER = Caller()


class Trace(NamedTuple):
    """How an answer came about; durations in ns. Of several windows, the longest of each.

    Attributes:
        tokenize_ns: of the call's inputs.
        queue_ns: of the input, until it was run.
        compute_ns: of the batch.
        total_ns: of the call.
        batch_sequences: in the batch; 0 if the outputs came from the cache.
        batch_tokens: likewise.
    """

    tokenize_ns: int
    queue_ns: int
    compute_ns: int
    total_ns: int
    batch_sequences: int
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """The outcome of one input.

    Attributes:
        outcome: its value, or why it has none.
        tokens: of the whole input, as far as known.
        read: of them, by the model; 0 if it was refused.
        windows: in which they were read; 0 if it was refused.
        trace: how the answer came about; None if it was refused.
    """

    outcome: T | RequestError
    tokens: int = 0
    read: int = 0
    windows: int = 0
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Question(Generic[T_co]):
    """What a task wants to know of each input.

    Attributes:
        outputs: of the graph.
        conclude: the value, from the reading and the outputs of each of its windows.
        offsets: whether readings need the offsets of tokens.
        prompt: put before each text.
        check: why an input, called by that field, cannot be asked about; None if it can.
    """

    outputs: tuple[str, ...]
    conclude: Callable[[Reading, Sequence[Outputs]], T_co]
    offsets: bool = False
    prompt: str = ""
    check: Callable[[Reading, str], InvalidInput | None] | None = None


def require(model: Model, call: str, *tasks: str) -> None:
    """Check that a model answers a call.

    Raises:
        WrongTask: it does not.
    """
    if model.manifest.task not in tasks:
        raise WrongTask(
            f"{call} is for {' and '.join(tasks)}, and model {model.name!r} is for "
            f"{model.manifest.task}: ask another model, or make another call"
        )


async def ask(
    model: Model, inputs: Sequence[Input], fit: Fit, caller: Caller, question: Question[T]
) -> list[Reply[T]]:
    """Ask a model a question about inputs, each with its own reply, in order.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    watched, in_flight = CURRENT.get(), model.statistics.in_flight
    stages = watched.asking(model.name, model.version, inputs) if watched else None
    in_flight.calls += 1
    in_flight.texts += len(inputs)
    try:
        async with asyncio.timeout(_seconds_left(model, caller)):
            replies = await _ask(model, inputs, fit, caller, question, stages)
    except TimeoutError:
        raise DeadlineMissed(
            f"the server gives a request {model.limits.max_request_seconds:g} s, and they are "
            "over: send fewer texts a call, or have the server started with a larger "
            "--max-request-seconds"
        ) from None
    finally:
        in_flight.calls -= 1
        in_flight.texts -= len(inputs)
    if watched is not None:
        watched.tokens += sum(reply.read for reply in replies)
    return replies


def _seconds_left(model: Model, caller: Caller) -> float | None:
    """The server's own limit of a request's time, if it ends the call before its deadline does.

    It is not made the call's deadline: calls with a deadline go before those without, and one that
    all calls share would only hide which are urgent.
    """
    limit, now = model.limits.max_request_seconds, time.monotonic()
    left = min(caller.arrived, now) + limit - now
    return left if limit and caller.deadline - now > left else None


async def _ask(  # noqa: PLR0913, PLR0917 - those of ask, and what traces it
    model: Model,
    inputs: Sequence[Input],
    fit: Fit,
    caller: Caller,
    question: Question[T],
    stages: Stages | None,
) -> list[Reply[T]]:
    begin = time.perf_counter_ns()
    readings = await model.read(
        inputs, fit, caller.deadline, prompt=question.prompt, offsets=question.offsets
    )
    if question.check is not None:
        readings = [
            (isinstance(reading, Reading) and question.check(reading, one.field)) or reading
            for reading, one in zip(readings, inputs, strict=True)
        ]
    tokenize_ns = time.perf_counter_ns() - begin
    sequences = [w.sequence for r in readings if isinstance(r, Reading) for w in r.windows]
    answers = (
        await model.compute(sequences, caller.deadline, caller.priority, question.outputs, stages)
        if sequences
        else []
    )
    total_ns = time.perf_counter_ns() - begin
    model.note(tokenize_ns, total_ns)
    landed = _landed(readings, answers)

    def conclude() -> list[T | RequestError]:
        return [_value(question, reading, mine) for reading, mine in landed]

    heavy = _heft(question, landed) > _INLINE_BYTES
    values = await asyncio.to_thread(conclude) if heavy else conclude()
    if stages is not None:
        stages.end(tokenize_ns, total_ns)
    return [
        _reply(reading, mine, value, tokenize_ns, total_ns)
        for (reading, mine), value in zip(landed, values, strict=True)
    ]


def _landed(
    readings: Sequence[Reading | InvalidInput], answers: Sequence[Answer | RequestError]
) -> list[_Landed]:
    """Each reading with the outcomes of its windows."""
    rest = iter(answers)
    return [
        (one, [next(rest) for _ in one.windows] if isinstance(one, Reading) else [])
        for one in readings
    ]


def _heft(question: Question[T], landed: Sequence[_Landed]) -> int:
    """How much there is to conclude, in bytes of outputs that are merely copied."""
    outputs = [one.outputs for _, mine in landed for one in mine if isinstance(one, Answer)]
    size = sum(array.nbytes for each in outputs for array in each.values())
    if not question.offsets:
        return size
    tokens = sum(reading.tokens for reading, _ in landed if isinstance(reading, Reading))
    return _SORTED * size + _TOKEN_BYTES * tokens


def _value(
    question: Question[T],
    reading: Reading | InvalidInput,
    outcomes: Sequence[Answer | RequestError],
) -> T | RequestError:
    """What a task makes of an input, or the first error that it has met."""
    if isinstance(reading, InvalidInput):
        return reading
    outputs = []
    for one in outcomes:
        if isinstance(one, RequestError):
            return one
        outputs.append(one.outputs)
    try:
        return question.conclude(reading, outputs)
    except RequestError as error:
        return error


def _reply(
    reading: Reading | InvalidInput,
    outcomes: Sequence[Answer | RequestError],
    value: T | RequestError,
    tokenize_ns: int,
    total_ns: int,
) -> Reply[T]:
    if isinstance(reading, InvalidInput) or isinstance(value, RequestError):
        return Reply(value, reading.tokens)
    good = [one for one in outcomes if isinstance(one, Answer)]
    last = good[-1]
    queue_ns, compute_ns = last.queue_ns, last.compute_ns
    if len(good) > 1:
        queue_ns = max(one.queue_ns for one in good)
        compute_ns = max(one.compute_ns for one in good)
    trace = Trace(
        tokenize_ns, queue_ns, compute_ns, total_ns, last.batch_sequences, last.batch_tokens
    )
    return Reply(value, reading.tokens, reading.read, len(good), trace)
