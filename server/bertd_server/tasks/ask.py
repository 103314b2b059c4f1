"""From inputs to replies: what all tasks share.

A task names the outputs that it wants and says what they mean for one input; :func:`ask` does the
rest, and gives each input a reply of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import DeadlineMissed, InvalidInput, RequestError, WrongTask
from bertd_server.models.model import Model
from bertd_server.scheduling.memory_budget import Reservation
from bertd_server.scheduling.scheduler import INTERACTIVE
from bertd_server.security.allowance import ALLOWANCE, Allowance
from bertd_server.system.call_metrics import CURRENT, Stages
from bertd_server.system.limited import limited
from bertd_server.tasks import footprint
from bertd_server.tasks.concluding import Conclude, ConcludedInput, Conclusions
from bertd_server.tasks.limits import Answerable
from bertd_server.tokenization.budget import answer_budget, field_of
from bertd_server.tokenization.reader import Fit, Input, Reading
from bertd_server.tokenization.text_queue import INLINE_CHARACTERS

T = TypeVar("T")
MOST_REPEATED = 4_000_000  # characters; some seconds of tokenising, from a short request

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class CallContext:
    """How long a caller waits, and how urgently.

    Make it as the request arrives: whatever is asked for it, in turn or at once, shares the time.

    Attributes:
        deadline: on the monotonic clock; then the answers are no longer wanted.
        priority: class of the call: lower ones go first.
        arrived: when the request came, on the same clock; infinite where nobody has noted it.
        answer_bytes: that the answers to the request may have in all; infinite where they go into
            no message.
        task: that ends once its answer is sent, and no more memory is taken for it; None where an
            answer is the caller's own. A weak reference: a task that was cancelled keeps the frames
            of its call, which have this.
    """

    deadline: float = math.inf
    priority: int = INTERACTIVE
    arrived: float = math.inf
    answer_bytes: float = math.inf
    task: weakref.ref[asyncio.Task[Any]] | None = None

    @classmethod
    def within(
        cls,
        seconds: float,
        priority: int = INTERACTIVE,
        answer_bytes: float = math.inf,
        task: asyncio.Task[Any] | None = None,
    ) -> CallContext:
        """One who waits so many seconds from now."""
        now = time.monotonic()
        kept = None if task is None else weakref.ref(task)
        return cls(now + seconds, priority, now, answer_bytes, kept)


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


def _small(_: Reading) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class TaskQuery(Generic[T_co]):
    """What a task wants to know of each input.

    Attributes:
        outputs: of the graph.
        conclude: makes of them what is given for an input.
        offsets: whether readings need the offsets of tokens.
        prompt: put before each text.
        check: why an input, by its reading, cannot be asked about; None if it can.
        answer_bytes: that the answer to an input will have, at least about; 0 where it is small
            beside the request.
        token_bytes: that it will have besides for each token that is read.
        padded: whether all answers are as long as the longest.
    """

    outputs: tuple[str, ...]
    conclude: Conclude[T_co]
    offsets: bool = False
    prompt: str = ""
    check: Callable[[Reading, Input], InvalidInput | None] | None = None
    answer_bytes: Callable[[Reading], int] = _small
    token_bytes: int = 0
    padded: bool = False


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
        replies = await limited(
            _ask_within(model, inputs, fit, caller, query, stages),
            lambda: _seconds_left(model, caller),
        )
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


async def _ask_within(  # noqa: PLR0913, PLR0917 - those of ask, and what traces it
    model: Model,
    inputs: Sequence[Input],
    fit: Fit,
    caller: CallContext,
    query: TaskQuery[T],
    stages: Stages | None,
) -> list[Reply[T]]:
    """Ask, with memory for all that is made of the inputs."""
    if sum(one.characters for one in inputs) > INLINE_CHARACTERS:
        check_repeated(inputs)
        answers = answer_budget(caller.answer_bytes)
        inputs = await model.foreseen(inputs, fit, answers, query.token_bytes)
    needs = footprint.of_inputs(
        inputs, fit, model.manifest, query.outputs, query.prompt, details=query.offsets
    )
    field = inputs[0].field.partition("[")[0] if inputs else ""
    with await model.reserve(*needs, deadline=caller.deadline, field=field) as memory:
        replies = await _ask(model, inputs, fit, caller, query, stages, memory)
        memory.release_after(caller.task() if caller.task else None)
    return replies


def check_repeated(inputs: Sequence[Input]) -> None:
    """Refuse a text that is to be read again and again, as a long query is with each document.

    Raises:
        InvalidInput: that would be too much beside what the request has brought.
    """
    characters = sum(len(one.text) for one in inputs)
    if characters <= MOST_REPEATED:
        return
    repeated = characters - sum(map(len, {id(one.text): one.text for one in inputs}.values()))
    if repeated > MOST_REPEATED:
        field = field_of(inputs[0])
        raise InvalidInput(
            f"{inputs[0].field} is read with each of {len(inputs)} {field}, {repeated} characters "
            f"in all, and a request may have {MOST_REPEATED} of texts that are there already: "
            f"shorten it, or send fewer {field}",
            field=field,
            reason="too_many",
            limit=MOST_REPEATED,
        )


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

    def answer_size(reading: Reading) -> int:
        return query.answer_bytes(reading) + query.token_bytes * reading.read

    readings = await model.read(
        inputs,
        fit,
        caller.deadline,
        prompt=query.prompt,
        offsets=query.offsets,
        settle=Answerable(
            query.check, answer_size, answer_budget(caller.answer_bytes), query.padded
        ),
    )
    tokenize_ns = time.perf_counter_ns() - begin
    sequences = [w.sequence for r in readings if isinstance(r, Reading) for w in r.windows]
    concluded = Conclusions.of(readings, query.conclude, model.jobs, caller.deadline)
    try:
        if sequences:
            read = [one for one in readings if isinstance(one, Reading)]
            size = footprint.of_readings(read, model.manifest, query.outputs)
            await memory.resize(size, caller.deadline)
            computing = model.compute(
                sequences, caller.deadline, caller.priority, query.outputs, concluded.hear, stages
            )
            key = ALLOWANCE.get()
            await (computing if key is None else _charged(key, sequences, computing))
        total_ns = time.perf_counter_ns() - begin
        statistics = model.statistics
        statistics.tokenize.observe(tokenize_ns / 1e9)
        statistics.total.observe(total_ns / 1e9)
        statistics.last_answer = time.time()
        await concluded.rest()
    finally:
        concluded.leave()
    if stages is not None:
        stages.end(tokenize_ns, total_ns)
    inputs_read = iter(concluded.inputs)
    return [
        Reply(reading, reading.tokens)
        if isinstance(reading, InvalidInput)
        else _reply(next(inputs_read), tokenize_ns, total_ns)
        for reading in readings
    ]


def _reply(one: ConcludedInput[T], tokenize_ns: int, total_ns: int) -> Reply[T]:
    """What the task makes of an input, or the first error that it has met."""
    reading = one.reading
    if one.error is not None:
        return Reply(one.error, reading.tokens)
    timings = Timings(tokenize_ns, one.queue_ns, one.compute_ns, total_ns, *one.batch)
    return Reply(cast("T", one.value), reading.tokens, reading.read, len(reading.windows), timings)


async def _charged(
    allowance: Allowance, sequences: Sequence[TokenSequence], computing: Awaitable[None]
) -> None:
    """Charge the key of the call with what is read for it, unless it is refused."""
    tokens = sum(map(len, sequences))
    allowance.charge(tokens)
    try:
        await computing
    except RequestError:
        allowance.charge(-tokens)
        raise
