"""A served model: a bundle, verified and loaded, with its tokenizer and scheduler.

::

    inputs ──text queue, reader──> sequences ──scheduler──> outputs of the graph
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Self
from weakref import WeakMethod

from tokenizers import Tokenizer

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.models.background import Background
from bertd_server.models.startup import Loaded, ModelOptions
from bertd_server.scheduling.deduplication import Batch, Completion
from bertd_server.scheduling.executor import JobQueue, SlicedExecutor
from bertd_server.scheduling.lanes import unheard
from bertd_server.scheduling.memory_budget import MemoryBudget, Reservation
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.scheduler import Scheduler, SchedulerOptions
from bertd_server.scheduling.statistics import Gauges, Statistics
from bertd_server.system.call_metrics import Stages
from bertd_server.tokenization.budget import TOKEN_BYTES, Budget, answer_budget, token_budget
from bertd_server.tokenization.details import Details
from bertd_server.tokenization.least import Least
from bertd_server.tokenization.reader import Fit, Input, Reading
from bertd_server.tokenization.text_queue import TextQueue


class Model:
    """A bundle that answers. Whoever uses it holds it, with `with`; see :meth:`retire`.

    Attributes:
        name: by which it is served.
        version: of that name, a whole number.
        manifest: what the export says of it.
        statistics: what has happened so far.
        jobs: what follows the model's run, and what describes texts, is done there.
        memory: of requests in flight, those of other models of the server included.
        least: what texts have at least, known before they are read.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        loaded: Loaded,
        options: ModelOptions,
        *,
        name: str = "",
        version: str = "1",
        pool: Pool | None = None,
        executor: SlicedExecutor | None = None,
        share: float = 1.0,
        on_lanes: Callable[[int], None] = unheard,
        memory: MemoryBudget | None = None,
    ) -> None:
        """Be ready to answer; construct this on the event loop that uses it.

        Args:
            loaded: the bundle.
            options: how to run it.
            name: by which it is served; empty for its own.
            version: a whole number.
            pool: lanes to share with other models; None starts its own.
            executor: to share with other models; None starts its own.
            share: of the pool, beside those of the others.
            on_lanes: told how many lanes of its own are alive, whenever that changes.
            memory: of requests in flight; None for no limit.
        """
        self.manifest = loaded.manifest
        self.name = name or loaded.manifest.name
        self.version = version
        self._reader = loaded.reader
        self.least = Least(
            loaded.reader.tokenizer, loaded.reader.max_tokens, options.texts.max_text_characters
        )
        engine = loaded.engine
        scheduling = replace(
            options.scheduling,
            lanes=engine.lanes,
            max_batch_tokens=min(options.scheduling.max_batch_tokens, engine.max_batch_tokens),
        )
        self._own_executor = executor is None
        self._executor = executor or SlicedExecutor()
        # The scheduler must not hold the model: one that is exchanged goes without a collection.
        elsewhere = WeakMethod(self._computes_elsewhere)
        self._scheduler = Scheduler(
            engine,
            loaded.measured,
            scheduling,
            on_lanes=on_lanes,
            pool=pool,
            share=share,
            beside_others=lambda: (asked := elsewhere()) is not None and asked(),
        )
        grid, self._calibrating = loaded.measured.grid, None
        if grid is not None:
            self._calibrating = Background(
                grid, self._scheduler.pool, self._scheduler.rebase, self.name
            )
        self.statistics: Statistics = self._scheduler.statistics
        self.memory = memory or MemoryBudget()
        self._texts = TextQueue(options.texts, self.statistics.refused)
        self.jobs = JobQueue(self._executor, self.statistics)
        self._holders = 0
        self._unheld = asyncio.Event()
        self._unheld.set()

    def __enter__(self) -> Self:
        self._holders += 1
        self._unheld.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._holders -= 1
        if not self._holders:
            self._unheld.set()

    async def retire(self, within: float = math.inf) -> bool:
        """Wait until nobody holds it, then :meth:`drain`; nobody must find it any more.

        Returns:
            whether all that was taken was finished within so many seconds.
        """
        end = time.monotonic() + within
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(within) else within):
                await self._unheld.wait()
        return await self.drain(max(0.0, end - time.monotonic()))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; read only."""
        return self._reader.tokenizer

    @property
    def limits(self) -> SchedulerOptions:
        """Limits of batches, those of memory included, and of what waits."""
        return self._scheduler.options

    @property
    def mask_token(self) -> str:
        """How the tokenizer writes a mask; empty where the task has none."""
        id_ = self.manifest.mask_token_id
        return "" if id_ is None else self.tokenizer.id_to_token(id_) or ""

    async def reserve(
        self, size: int, request: int = 0, *, deadline: float = math.inf, field: str = "texts"
    ) -> Reservation:
        """Have memory for a call, before anything is made of it.

        Args:
            size: bytes, as :mod:`bertd_server.tasks.footprint` says.
            request: of these, what the request takes while it waits.
            deadline: on the monotonic clock.
            field: of the request, that makes it large.

        Raises:
            Overloaded: there are not so many, or too much waits.
            DeadlineMissed: the deadline passed before there was room.
        """
        return await self.memory.reserve(
            self.memory.within(size),
            request=request,
            deadline=deadline,
            field=field,
            refused=self.statistics.refused,
        )

    async def read(  # noqa: PLR0913 - by keyword
        self,
        inputs: Sequence[Input],
        fit: Fit,
        deadline: float,
        *,
        prompt: str = "",
        offsets: bool = False,
        settle: Callable[[Reading | InvalidInput, Input], Reading | InvalidInput] | None = None,
    ) -> list[Reading | InvalidInput]:
        """Turn inputs into what the model reads, each with its own outcome, in order.

        Args:
            inputs: texts and pairs.
            fit: what to do with long ones.
            deadline: on the monotonic clock.
            prompt: put before each text.
            offsets: whether readings shall have details.
            settle: what becomes of each outcome, in order, on any thread; what it raises ends
                the call before more is read.

        Raises:
            RequestError: the call as a whole cannot be answered.
        """
        budget = self.token_budget()

        def read(part: Sequence[Input]) -> list[Reading | InvalidInput]:
            found = self._reader(part, fit, prompt=prompt, offsets=offsets, budget=budget)
            return found if settle is None else list(map(settle, found, part))

        return await self._texts.run(inputs, read, extra=len(prompt), deadline=deadline)

    async def foreseen(
        self, inputs: Sequence[Input], fit: Fit | None, answers: Budget, token_bytes: int
    ) -> Sequence[Input]:
        """Inputs with what is wrong with them by their words alone; see :meth:`Least.foreseen`.

        Raises:
            InvalidInput: the request is too much.
        """
        return await self.least.foreseen(inputs, fit, self.token_budget(), answers, token_bytes)

    def token_budget(self) -> Budget:
        """Of the tokens that one request may have the model read."""
        return token_budget(self._texts.options.max_request_tokens)

    async def encode(
        self, inputs: Sequence[Input], *, special: bool = True, answer_bytes: float = math.inf
    ) -> list[Details | InvalidInput]:
        """Tokenise inputs, none cut, each with its own outcome, in order.

        Args:
            inputs: texts and pairs.
            special: whether the tokenizer adds its special tokens.
            answer_bytes: that an answer with a message for each token may have.

        Raises:
            InvalidInput: there are too many tokens for an answer.
            Overloaded: too many characters wait for the tokenizer.
        """
        budget = answer_budget(answer_bytes)
        inputs = await self.foreseen(inputs, None, budget, TOKEN_BYTES)
        return await self._texts.run(
            inputs, partial(self._reader.details, special=special, budget=budget)
        )

    async def count(self, inputs: Sequence[Input]) -> list[int | InvalidInput]:
        """Count the tokens of inputs, special tokens included; as :meth:`encode`, but keep none."""
        return await self._texts.run(inputs, self._reader.counts)

    def written_bytes(self, ids: Sequence[int]) -> int:
        """Bytes of UTF-8 that token ids of the vocabulary are as a text, about."""
        return self._reader.written_bytes(ids)

    async def compute(  # noqa: PLR0913, PLR0917 - what a call is
        self,
        sequences: Sequence[TokenSequence],
        deadline: float,
        priority: int,
        outputs: Sequence[str],
        hear: Callable[[int, Completion], None],
        stages: Stages | None = None,
    ) -> None:
        """Compute outputs of the graph for sequences, each with its own completion.

        Args:
            sequences: at least one.
            deadline: on the monotonic clock.
            priority: class of the call: lower ones go first.
            outputs: names from the manifest's `outputs`.
            hear: told of each completion as it comes, by the sequence's index; it must not raise.
            stages: told of each text that was computed.

        Raises:
            RequestError: the call as a whole cannot be answered.
        """
        await self._scheduler.submit(sequences, deadline, priority, outputs, stages, hear)

    def gauges(self) -> Gauges:
        """How things are at this moment."""
        return replace(
            self._scheduler.gauges(),
            waiting_characters=self._texts.waiting,
            waiting_jobs=len(self.jobs.waiting),
        )

    def running(self) -> frozenset[Batch]:
        """The batches that run, with their starts on the monotonic clock."""
        running = self._scheduler.running()
        return running if self._calibrating is None else running | self._calibrating.running()

    def relimit(
        self, *, max_queue_tokens: int, max_queue_seconds: float, max_queue_characters: int
    ) -> None:
        """Change how much may wait, as :mod:`bertd_server.config.settings` says."""
        self._scheduler.relimit(
            max_queue_tokens=max_queue_tokens, max_queue_seconds=max_queue_seconds
        )
        self._texts.relimit(max_queue_characters=max_queue_characters)

    def give_up(self) -> int:
        """End all calls with `Draining`; returns the number of texts and jobs that were left."""
        self._texts.close()
        return self._scheduler.give_up() + self._executor.close()

    async def drain(self, within: float = math.inf) -> bool:
        """Finish what was taken and stop; False if that took longer than `within` seconds."""
        if self._calibrating is not None:
            self._calibrating.stop()
            self._calibrating = None
        finished = await self._scheduler.drain(within)
        self._texts.close()
        if self._own_executor:
            self._executor.close()
        return finished

    def prompt(self, name: str | None) -> str:
        """The prompt of a name: None for the default, "" for none.

        Raises:
            InvalidInput: the model has no prompt of that name.
        """
        name = self.manifest.default_prompt_name if name is None else name
        if not name:
            return ""
        try:
            return self.manifest.prompts[name]
        except KeyError:
            known = ", ".join(sorted(self.manifest.prompts)) or "none"
            raise InvalidInput(
                f"prompt_name {name!r} is not a prompt of {self.name}; it has: {known}",
                field="prompt_name",
                reason="unknown_value",
            ) from None

    def _computes_elsewhere(self) -> bool:
        """Whether threads that are no lanes have much to do: the tokeniser's, the executor's."""
        return self._texts.waiting > 0 or self._executor.busy
