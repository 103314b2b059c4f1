"""A served model: a bundle, verified and loaded, with its tokenizer and scheduler.

::

    texts ──text queue, tokenizer──> sequences ──scheduler──> vectors
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from bertd import bundle

from bertd_server.engine import EngineOptions
from bertd_server.errors import InvalidInput, RequestError
from bertd_server.flights import Answer
from bertd_server.lanes import unheard
from bertd_server.packing import TokenSequence
from bertd_server.scheduler import INTERACTIVE, Scheduler, SchedulerOptions
from bertd_server.startup import StartOptions, start
from bertd_server.statistics import Gauges, Statistics
from bertd_server.text_queue import TextOptions, TextQueue
from bertd_server.tokenization import TextTokenizer, TokenizedText

log = structlog.get_logger("bertd")

CPU = "CPUExecutionProvider"


class TaskNotServedError(bundle.BundleError):
    """The bundle is intact, but for a task that no service answers."""


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The outcome of one text: an answer or an error, and its token counts as far as known.

    A refused text has no tokens read. Durations are those of the call.
    """

    outcome: Answer | RequestError
    total_tokens: int
    read_tokens: int
    tokenize_ns: int
    total_ns: int


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is run.

    Attributes:
        engine: sessions and what computes; its lanes are those of the scheduler too.
        scheduling: limits of batches and of what waits.
        texts: limits of texts before they are sequences.
        starting: what is done before the first request.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    scheduling: SchedulerOptions = field(default_factory=SchedulerOptions)
    texts: TextOptions = field(default_factory=TextOptions)
    starting: StartOptions = field(default_factory=StartOptions)


class Model:
    """A bundle that answers. Construct it with :meth:`load` on the event loop that uses it."""

    def __init__(
        self,
        manifest: bundle.Manifest,
        version: str,
        texts: TextQueue,
        scheduler: Scheduler,
    ) -> None:
        self.manifest = manifest
        self.version = version
        self._texts = texts
        self._scheduler = scheduler
        self.statistics: Statistics = scheduler.statistics

    @classmethod
    def load(
        cls, folder: Path, options: ModelOptions, on_lanes: Callable[[int], None] = unheard
    ) -> Model:
        """Verify a bundle, load it, and measure how fast it is here.

        Args:
            folder: the bundle.
            options: how to run it.
            on_lanes: told how many lanes are alive, whenever that changes.

        Raises:
            bundle.BundleError: the folder is not a bundle, or not an intact one.
            TaskNotServedError: the bundle is for another task than feature-extraction.
        """
        manifest = bundle.read_manifest(folder)
        if manifest.task != "feature-extraction":
            raise TaskNotServedError(
                f"{folder} is a bundle for {manifest.task}; bertd.v1 serves feature-extraction "
                f"alone so far: run this bundle with bertd_server.engine.Engine, or export the "
                f"model with --task feature-extraction"
            )
        bundle.verify_files(folder, manifest)
        tokenizer = TextTokenizer(
            folder / bundle.TOKENIZER_NAME,
            max_tokens=manifest.max_tokens,
            token_types=manifest.type_vocab_size,
            max_characters=options.texts.max_text_characters,
        )
        engine, measured = start(folder, manifest, options.engine, options.starting)
        if manifest.precision == "fp16" and engine.provider == CPU:
            log.warning(
                "fp16 on a CPU",
                model=manifest.name,
                remedy="a CPU converts fp16 to fp32 and gains nothing: serve this bundle on an "
                "accelerator, or export fp32 or int8 for this machine",
            )
        scheduling = replace(
            options.scheduling,
            lanes=engine.lanes,
            max_batch_tokens=min(options.scheduling.max_batch_tokens, engine.max_batch_tokens),
        )
        scheduler = Scheduler(engine, measured, scheduling, on_lanes=on_lanes)
        texts = TextQueue(tokenizer, options.texts, scheduler.statistics.refused)
        version = folder.name if folder.name.isdecimal() else "1"
        return cls(manifest, version, texts, scheduler)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        truncate: bool = False,
        within: float = math.inf,
        priority: int = INTERACTIVE,
    ) -> list[EmbeddedText]:
        """Embed texts, each with its own outcome, in order.

        Args:
            texts: the texts.
            prompt_name: a prompt of the model; None for its default, "" for none.
            truncate: cut over-long texts rather than refuse them.
            within: seconds until the answers are no longer wanted.
            priority: class of the call: lower ones go first.

        Raises:
            RequestError: the call as a whole cannot be answered.
        """
        deadline = time.monotonic() + within
        begin = time.perf_counter_ns()
        tokenized = await self._texts.tokenize(
            texts, prompt=self._prompt(prompt_name), truncate=truncate, deadline=deadline
        )
        tokenize_ns = time.perf_counter_ns() - begin
        good: list[TokenSequence] = [
            text.sequence for text in tokenized if isinstance(text, TokenizedText)
        ]
        self.statistics.tokenize.observe(tokenize_ns / 1e9)
        answers = iter(await self._scheduler.submit(good, deadline, priority) if good else [])
        total_ns = time.perf_counter_ns() - begin
        self.statistics.total.observe(total_ns / 1e9)
        return [
            EmbeddedText(
                next(answers), text.total_tokens, len(text.sequence), tokenize_ns, total_ns
            )
            if isinstance(text, TokenizedText)
            else EmbeddedText(text, text.tokens, 0, tokenize_ns, total_ns)
            for text in tokenized
        ]

    def gauges(self) -> Gauges:
        """How things are at this moment."""
        return replace(self._scheduler.gauges(), waiting_characters=self._texts.waiting)

    async def drain(self, within: float = math.inf) -> bool:
        """Finish what was taken and stop; False if that took longer than `within` seconds."""
        finished = await self._scheduler.drain(within)
        self._texts.close()
        return finished

    def _prompt(self, name: str | None) -> str:
        name = self.manifest.default_prompt_name if name is None else name
        if not name:
            return ""
        try:
            return self.manifest.prompts[name]
        except KeyError:
            known = ", ".join(sorted(self.manifest.prompts)) or "none"
            raise InvalidInput(
                f"prompt_name {name!r} is not a prompt of {self.manifest.name}; it has: {known}",
                field="prompt_name",
            ) from None
