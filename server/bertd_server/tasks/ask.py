"""From inputs to replies: what all tasks share.

A task names the outputs that it wants and says what they mean for one input; :func:`ask` does the
rest, and gives each input a reply of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from bertd_server.engine.engine import GraphOutputs
from bertd_server.errors import DeadlineMissed, InvalidInput, RequestError, WrongTask
from bertd_server.models.model import Model
from bertd_server.scheduling.deduplication import Completion, Computed
from bertd_server.scheduling.memory_budget import Reservation
from bertd_server.scheduling.scheduler import INTERACTIVE
from bertd_server.system.call_metrics import CURRENT, Stages
from bertd_server.tasks import footprint
from bertd_server.tokenization.reader import Fit, Input, Reading

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# What a task does with the outputs of a call holds the event loop up for some ms if it is worth
# more than this: bytes of outputs where they are merely copied. What looks at each token, or sorts
# a vocabulary, costs more: so many bytes for each token, and each byte so many times.
_INLINE_BYTES = 262_144
_TOKEN_BYTES = 512
_SORTED = 4


@dataclass(frozen=True, slots=True)
class CallContext:
    """How long a caller waits, and how urgently.

    Make it as the request arrives: whatever is asked for it, in turn or at once, shares the time.

    Attributes:
        deadline: on the monotonic clock; then the answers are no longer wanted.
        priority: class of the call: lower ones go first.
        arrived: when the request came, on the same clock; infinite where nobody has noted it.
        task: that ends once its answer is sent, and no more memory is taken for it; None where an
            answer is the caller's own.
    """

    deadline: float = math.inf
    priority: int = INTERACTIVE
    arrived: float = math.inf
    task: asyncio.Task[Any] | None = None

    @classmethod
    def within(
        cls, seconds: float, priority: int = INTERACTIVE, task: asyncio.Task[Any] | None = None
    ) -> CallContext:
        """One who waits so many seconds from now."""
        now = time.monotonic()
        return cls(now + seconds, priority, now, task)


NO_DEADLINE = CallContext()


class Timings(NamedTuple):
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
    trace: Timings | None = None


@dataclass(frozen=True, slots=True)
class TaskQuery(Generic[T_co]):
    """What a task wants to know of each input.

    Attributes:
        outputs: of the graph.
        conclude: the value, from the reading and the outputs of each of its windows.
        offsets: whether readings need the offsets of tokens.
        prompt: put before each text.
        check: why an input, called by that field, cannot be asked about; None if it can.
    """

    outputs: tuple[str, ...]
    conclude: Callable[[Reading, Sequence[GraphOutputs]], T_co]
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
    model: Model, inputs: Sequence[Input], fit: Fit, caller: CallContext, query: TaskQuery[T]
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
            needs = footprint.of_inputs(
                inputs, fit, model.manifest, query.outputs, query.prompt, details=query.offsets
            )
            field = inputs[0].field.partition("[")[0] if inputs else ""
            with await model.reserve(*needs, deadline=caller.deadline, field=field) as memory:
                replies = await _ask(model, inputs, fit, caller, query, stages, memory)
                memory.release_after(caller.task)
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


def _seconds_left(model: Model, caller: CallContext) -> float | None:
    """The server's own limit of a request's time, if it ends the call before its deadline does.

    It is not made the call's deadline: calls with a deadline go before those without, and one that
    all calls share would only hide which are urgent.
    """
    limit = model.limits.max_request_seconds
    if not limit:
        return None
    now = time.monotonic()
    left = min(caller.arrived, now) + limit - now
    return left if caller.deadline - now > left else None


async def _ask(  # noqa: PLR0913, PLR0917 - those of ask, and what traces it
    model: Model,
    inputs: Sequence[Input],
    fit: Fit,
    caller: CallContext,
    query: TaskQuery[T],
    stages: Stages | None,
    memory: Reservation,
) -> list[Reply[T]]:
    begin = time.perf_counter_ns()
    readings = await model.read(
        inputs, fit, caller.deadline, prompt=query.prompt, offsets=query.offsets
    )
    if query.check is not None:
        readings = [
            (isinstance(reading, Reading) and query.check(reading, one.field)) or reading
            for reading, one in zip(readings, inputs, strict=True)
        ]
    tokenize_ns = time.perf_counter_ns() - begin
    sequences = [w.sequence for r in readings if isinstance(r, Reading) for w in r.windows]
    completions: Sequence[Completion] = ()
    if sequences:
        read = [one for one in readings if isinstance(one, Reading)]
        size = footprint.of_readings(read, model.manifest, query.outputs)
        await memory.resize(size, caller.deadline)
        completions = await model.compute(
            sequences, caller.deadline, caller.priority, query.outputs, stages
        )
    total_ns = time.perf_counter_ns() - begin
    statistics = model.statistics
    statistics.tokenize.observe(tokenize_ns / 1e9)
    statistics.total.observe(total_ns / 1e9)
    statistics.last_answer = time.time()
    conclude = partial(_replies, query, readings, completions, tokenize_ns, total_ns)
    heavy = _work(query, readings, completions) > _INLINE_BYTES
    replies = await asyncio.to_thread(conclude) if heavy else conclude()
    if stages is not None:
        stages.end(tokenize_ns, total_ns)
    return replies


def _work(
    query: TaskQuery[T],
    readings: Sequence[Reading | InvalidInput],
    completions: Sequence[Completion],
) -> int:
    """How much there is to conclude, in bytes of outputs that are merely copied."""
    size = tokens = 0
    for completion in completions:
        if isinstance(completion, Computed):
            for array in completion.outputs.values():
                size += array.nbytes
    if not query.offsets:
        return size
    for reading in readings:
        if isinstance(reading, Reading):
            tokens += reading.tokens
    return _SORTED * size + _TOKEN_BYTES * tokens


def _replies(
    query: TaskQuery[T],
    readings: Sequence[Reading | InvalidInput],
    completions: Sequence[Completion],
    tokenize_ns: int,
    total_ns: int,
) -> list[Reply[T]]:
    """What a task makes of each input, or the first error that the input has met."""
    replies: list[Reply[T]] = []
    rest = iter(completions)
    for reading in readings:
        if isinstance(reading, InvalidInput):
            replies.append(Reply(reading, reading.tokens))
            continue
        queue_ns = compute_ns = sequences = tokens = 0
        outputs: list[GraphOutputs] = []
        error: RequestError | None = None
        for completion in islice(rest, len(reading.windows)):
            if isinstance(completion, RequestError):
                error = error or completion
                continue
            outputs.append(completion.outputs)
            queue_ns = max(queue_ns, completion.queue_ns)
            compute_ns = max(compute_ns, completion.compute_ns)
            sequences, tokens = completion.batch_sequences, completion.batch_tokens
        if error is None:
            try:
                value = query.conclude(reading, outputs)
            except RequestError as refused:
                error = refused
        if error is not None:
            replies.append(Reply(error, reading.tokens))
            continue
        timings = Timings(tokenize_ns, queue_ns, compute_ns, total_ns, sequences, tokens)
        replies.append(Reply(value, reading.tokens, reading.read, len(outputs), timings))
    return replies
