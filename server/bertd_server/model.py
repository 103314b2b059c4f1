"""A served model: a bundle, verified and loaded, with its tokenizer and scheduler.

::

    texts ──tokenizer──> sequences ──scheduler──> vectors
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from bertd import bundle

from bertd_server.engine import Engine
from bertd_server.errors import InvalidInput, RequestError
from bertd_server.flights import Answer
from bertd_server.lanes import unheard
from bertd_server.packing import TokenSequence
from bertd_server.scheduler import INTERACTIVE, Scheduler, SchedulerOptions
from bertd_server.startup import OneSession, calibrate
from bertd_server.statistics import Gauges, Statistics
from bertd_server.tokenization import TextTokenizer, TokenizedText

log = structlog.get_logger("bertd")

CPU = "CPUExecutionProvider"

# Below this many characters a call is tokenised on the event loop: a thread costs more.
INLINE_CHARACTERS = 2_000


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
        threads: of a batch where there is one lane; several lanes have one thread each.
        scheduling: lanes and limits.
    """

    threads: int = 1
    scheduling: SchedulerOptions = field(default_factory=SchedulerOptions)


class Model:
    """A bundle that answers. Construct it with :meth:`load` on the event loop that uses it."""

    def __init__(
        self,
        manifest: bundle.Manifest,
        version: str,
        tokenizer: TextTokenizer,
        scheduler: Scheduler,
    ) -> None:
        self.manifest = manifest
        self.version = version
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self.statistics: Statistics = scheduler.statistics
        self._tokenize_thread = ThreadPoolExecutor(1, thread_name_prefix="bertd-tokenize")

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
        )
        lanes = options.scheduling.lanes
        engine = Engine(folder, manifest, threads=options.threads if lanes == 1 else 1)
        if manifest.precision == "fp16" and engine.provider == CPU:
            log.warning(
                "fp16 on a CPU",
                model=manifest.name,
                remedy="a CPU converts fp16 to fp32 and gains nothing: serve this bundle on an "
                "accelerator, or export fp32 or int8 for this machine",
            )
        sessions = OneSession(engine)
        measured = calibrate(
            sessions,
            longest=manifest.max_tokens,
            most=options.scheduling.max_batch_tokens,
        )
        scheduler = Scheduler(sessions, measured, options.scheduling, on_lanes=on_lanes)
        version = folder.name if folder.name.isdecimal() else "1"
        return cls(manifest, version, tokenizer, scheduler)

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
        tokenized = await self._tokenize(texts, self._prompt(prompt_name), truncate=truncate)
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
        return self._scheduler.gauges()

    async def drain(self) -> None:
        """Finish what was taken and stop."""
        await self._scheduler.drain()
        self._tokenize_thread.shutdown(wait=True)

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

    async def _tokenize(
        self, texts: Sequence[str], prompt: str, *, truncate: bool
    ) -> list[TokenizedText | InvalidInput]:
        if sum(map(len, texts)) <= INLINE_CHARACTERS:
            return self._tokenizer(texts, prompt=prompt, truncate=truncate)
        return await asyncio.get_running_loop().run_in_executor(
            self._tokenize_thread,
            lambda: self._tokenizer(texts, prompt=prompt, truncate=truncate),
        )
