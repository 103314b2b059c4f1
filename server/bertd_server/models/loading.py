"""Bundles to models, with the settings of a server, on lanes that all of its models share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from weakref import WeakKeyDictionary

from bertd_server.config.settings import Settings
from bertd_server.engine.engine import EngineOptions
from bertd_server.models import startup
from bertd_server.models.layout import ModelSettings
from bertd_server.models.model import Model
from bertd_server.models.startup import Loaded, ModelOptions, Start, StartOptions
from bertd_server.scheduling.executor import SlicedExecutor
from bertd_server.scheduling.lanes import unheard
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.scheduler import SchedulerOptions
from bertd_server.tokenization.text_queue import TextOptions

_SERVERS = ModelSettings()


class Loader:
    """Loads one bundle after the other. Use it on one event loop.

    Attributes:
        settings: of models that are loaded from now on.
        memory: of requests in flight, of all models together.
    """

    def __init__(
        self,
        settings: Settings,
        on_lanes: Callable[[int], None] = unheard,
        start: Start = startup.start,
        memory: MemoryBudget | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            settings: of the server.
            on_lanes: told how many lanes are alive, whenever that changes.
            start: makes the engine ready, and measures it.
            memory: of requests in flight; each load under a memory limit sets how much there is.
        """
        self.settings = settings
        self.memory = memory or MemoryBudget()
        self._on_lanes = on_lanes
        self._start = start
        self._pool: Pool | None = None
        self._executor: SlicedExecutor | None = None
        self._own: WeakKeyDictionary[Model, ModelSettings] = WeakKeyDictionary()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bertd-load")
        self._reading: set[Future[Loaded]] = set()

    async def load_aside(
        self, folder: Path, name: str, version: str, own: ModelSettings = _SERVERS
    ) -> Model:
        """Load a bundle while others answer.

        Args:
            folder: the bundle.
            name: by which it will be served; empty for its own.
            version: of that name.
            own: settings of the model.

        Raises:
            bundle.BundleError: the folder is not a bundle, or not an intact one.
            CannotServeError: the provider or the memory is not there.
        """
        options = self._options(own)
        reading = self._thread.submit(startup.load, folder, options, self._start)
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        loaded = await asyncio.wrap_future(reading)
        return self._model(loaded, options, name=name, version=version, own=own)

    @property
    def busy(self) -> bool:
        """Whether a bundle is being read, for somebody or for nobody any more."""
        return bool(self._reading)

    def close(self, *, wait: bool = True) -> None:
        """End all threads; without `wait`, a lane that never comes back is left behind."""
        self._thread.shutdown(wait=False)
        if self._pool is not None:
            self._pool.close(wait=wait)
        if self._executor is not None:
            self._executor.close()

    def _model(
        self,
        loaded: Loaded,
        options: ModelOptions,
        *,
        name: str = "",
        version: str,
        own: ModelSettings = _SERVERS,
    ) -> Model:
        if self._executor is None:
            self._executor = SlicedExecutor()
        if self._pool is None:
            self._pool = Pool(
                loaded.engine.lanes,
                niceness=self.settings.lane_niceness,
                on_lanes=self._on_lanes,
            )
        if loaded.request_bytes:  # what calls had while it was measured was counted as lost
            self.memory.relimit(loaded.request_bytes + self.memory.held)
        model = Model(
            loaded,
            options,
            name=name,
            version=version,
            pool=self._pool,
            executor=self._executor,
            share=own.share,
            memory=self.memory,
        )
        self._own[model] = own
        self.relimit([model])  # the settings may have changed while the bundle was read
        return model

    def relimit(self, models: Iterable[Model]) -> None:
        """Put the limits of the settings into effect, where a model has none of its own."""
        for model in models:
            own = self._own.get(model, _SERVERS).own
            model.relimit(
                max_queue_tokens=own.get("max_queue_tokens", self.settings.max_queue_tokens),
                max_queue_seconds=own.get("max_queue_seconds", self.settings.max_queue_seconds),
                max_queue_characters=self.settings.max_queue_characters,
            )

    def _options(self, own: ModelSettings) -> ModelOptions:
        settings = self.settings
        scheduling = SchedulerOptions(
            **{field.name: getattr(settings, field.name) for field in fields(SchedulerOptions)}
        )
        scheduling = replace(scheduling, **own.own)
        if settings.provider != "cpu":  # how long it takes is not this machine's alone to say
            scheduling = replace(scheduling, loop_run_seconds=0.0)
        return ModelOptions(
            engine=EngineOptions(
                threads=settings.threads,
                lanes=settings.lanes,
                provider=settings.provider,
                niceness=settings.lane_niceness,
                profile=settings.profile,
                kernels=settings.kernels,
                cache=settings.cache_folder,
            ),
            scheduling=scheduling,
            texts=TextOptions(
                settings.max_text_characters,
                settings.max_queue_characters,
                settings.max_request_tokens,
            ),
            starting=StartOptions(
                memory_limit=settings.memory_limit,
                cache_bytes=scheduling.cache_bytes,
                batch_tokens=scheduling.max_batch_tokens,
                warmup_seconds=settings.warmup_seconds,
                calibration_seconds=settings.calibration_seconds,
                first_calibration_seconds=settings.first_calibration_seconds,
                cache=settings.cache_folder,
            ),
        )
