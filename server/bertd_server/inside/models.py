"""Models for asyncio, without a server: open, ask, close.

::

    open_models(lanes=2) ──> OpenModels: one pool of lanes, one loop, no globals
        load(folder) ──aside──> OpenModel ──embed, classify, …──> values of bertd_server.tasks
        close() ──> no new calls, finish what was taken, end the lanes

Everything belongs to the event loop on which it was opened; :mod:`bertd_server.inside.threaded` is
the twin for threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar, Unpack
from weakref import WeakKeyDictionary

from bertd.bundle import BundleError, Manifest

from bertd_server.errors import Draining, UnknownModel
from bertd_server.inside.methods import ModelMethods
from bertd_server.inside.options import LoadOptions, OpenOptions
from bertd_server.inside.settings import SettingsError, model_settings, settings_of
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.loading import Loader
from bertd_server.models.model import Model
from bertd_server.scheduling.statistics import Gauges, Statistics
from bertd_server.security.paths import check_version, version_of

R = TypeVar("R")


class OpenModel(ModelMethods):
    """A model that answers, made by :meth:`OpenModels.load`. Use it on that event loop.

    A method raises the error of the first input that has no answer. Its twin with `_each` gives a
    :class:`bertd_server.tasks.ask.Reply` for each input, in order, whose `outcome` is the value or
    the error. Both raise what concerns the call as a whole:

    - `InvalidInput`: an option or an input cannot be; `field` says which.
    - `WrongTask`: the model is for another task.
    - `Overloaded`: too much waits; `retry_after_seconds` says when to come back.
    - `DeadlineMissed`: the timeout is too short.
    - `Draining`: it was closed.

    To cancel a call takes its texts out of the queue.
    """

    def __init__(self, model: Model, models: OpenModels) -> None:
        self._model = model
        self._models = models

    @property
    def name(self) -> str:
        """By which it was loaded."""
        return self._model.name

    @property
    def version(self) -> str:
        """Of that name."""
        return self._model.version

    @property
    def manifest(self) -> Manifest:
        """What the export says of it: task, dimensions, labels, prompts, largest input."""
        return self._model.manifest

    @property
    def mask_token(self) -> str:
        """How its tokenizer writes a mask; empty where the task has none."""
        return self._model.mask_token

    @property
    def statistics(self) -> Statistics:
        """What has happened so far."""
        return self._model.statistics

    def gauges(self) -> Gauges:
        """What waits and runs at this moment."""
        return self._model.gauges()

    async def ask(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question that a function of :mod:`bertd_server.tasks` asks the model.

        Raises:
            RequestError: the call as a whole cannot be answered.
        """
        if not self._models.has(self._model):
            raise Draining(
                f"model {self.name!r} was closed, or another has its place: "
                "find() gives the one that answers now"
            )
        with self._model as model:
            return await question(model)

    async def close(self) -> bool:
        """Take no new calls, and finish those that were taken; as :meth:`OpenModels.unload`."""
        return await self._models.retire(self._model)


class OpenModels:
    """Models that share lanes. Make it with :func:`open_models`, on the loop that uses it.

    Attributes:
        catalogue: the models by name; services look there.
    """

    def __init__(self, **settings: Unpack[OpenOptions]) -> None:
        """Begin with none: threads come with the first model.

        Args:
            settings: how models are run.

        Raises:
            SettingsError: there is no such setting, or it cannot have the value.
        """
        self.settings = settings_of(settings)
        self.catalogue = Catalogue(self.settings.default_model)
        self._heard: list[Callable[[int], None]] = []
        self._lanes = 0
        self._loader = Loader(self.settings, on_lanes=self._lanes_changed)
        self._closed = False
        # A model ends once, whoever asks for it, and however often.
        self._ends: WeakKeyDictionary[Model, asyncio.Future[bool]] = WeakKeyDictionary()

    async def load(
        self, folder: str | Path, *, name: str = "", version: str = "", **own: Unpack[LoadOptions]
    ) -> OpenModel:
        """Load a bundle, on a thread: verify it, measure it, warm it up. It takes seconds.

        It takes the place of a model of its name and version, which finishes what it was asked.
        Where anything fails, those that were there go on.

        Args:
            folder: the bundle.
            name: by which it is found; empty for its own.
            version: of that name, a whole number; empty for the folder's name if that is a
                number, else 1.
            own: limits of this model, and its share of the lanes.

        Raises:
            bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
            CannotServeError: the provider or the memory is not there.
            SettingsError: a limit cannot have its value.
            Draining: this was closed.
        """
        folder = Path(folder)
        try:
            version = check_version(version) if version else version_of(folder)
        except BundleError as error:
            raise SettingsError(str(error)) from error
        self._check_open()
        model = await self._loader.load_aside(folder, name, version, model_settings(own))
        if self._closed:
            await model.drain()
            self._loader.close()
            self._check_open()
        before = self.catalogue.put(model)
        if before is not None:
            await self.retire(before)
        return OpenModel(model, self)

    def find(self, name: str = "", version: str = "") -> OpenModel:
        """A model that was loaded.

        Args:
            name: empty for the default, or for the only one.
            version: empty for the newest.

        Raises:
            UnknownModel: there is none.
        """
        return OpenModel(self.catalogue.find(name, version), self)

    async def unload(self, name: str, version: str = "") -> bool:
        """Take no new calls for a model, finish those that were taken, and forget it.

        Returns:
            whether they were finished within `drain_seconds`; if not, they got `Draining`.

        Raises:
            UnknownModel: there is none.
        """
        return await self.retire(self.catalogue.find(name, version))

    async def close(self, within: float | None = None) -> bool:
        """Take no new calls, finish those that were taken, and end all threads.

        Args:
            within: seconds; the calls that have no answer then get `Draining`. None for the
                setting `drain_seconds`.

        Returns:
            whether all were finished.
        """
        self._closed = True
        models = [*self.catalogue.models(), *self._ends]
        ended = await asyncio.gather(*(self.retire(model, within) for model in models))
        self._loader.close(wait=all(ended))
        return all(ended)

    def when_lanes(self, changed: Callable[[int], None]) -> None:
        """Have `changed` told how many lanes are alive: now, and whenever that changes."""
        self._heard.append(changed)
        changed(self._lanes)

    def has(self, model: Model) -> bool:
        """Whether a model answers new calls."""
        try:
            return self.catalogue.find(model.name, model.version) is model
        except UnknownModel:
            return False

    async def retire(self, model: Model, within: float | None = None) -> bool:
        """Take no new calls for a model, and finish those that were taken.

        Args:
            model: that answers now, or did.
            within: seconds, as of :meth:`close`.

        Returns:
            whether they were finished.
        """
        if self.has(model):
            self.catalogue.take(model.name, model.version)
        if model not in self._ends:
            limit = self.settings.drain_seconds if within is None else within
            self._ends[model] = asyncio.ensure_future(model.retire(limit))
        return await asyncio.shield(self._ends[model])

    def _check_open(self) -> None:
        if self._closed:
            raise Draining("the models were closed: open them again")

    def _lanes_changed(self, alive: int) -> None:
        self._lanes = alive
        for changed in self._heard:
            changed(alive)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def open_models(**settings: Unpack[OpenOptions]) -> OpenModels:
    """Open a set of models that share lanes; use it with `async with`.

    ::

        async with open_models(lanes=2) as models:
            model = await models.load("bundles/minilm")
            vectors = await model.embed(["one text", "another"])

    Args:
        settings: how models are run, :class:`bertd_server.inside.options.OpenOptions`.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
    """
    return OpenModels(**settings)


@asynccontextmanager
async def open_model(
    folder: str | Path, *, name: str = "", **settings: Unpack[OpenOptions]
) -> AsyncIterator[OpenModel]:
    """Open one model; use it with `async with`.

    Args:
        folder: the bundle.
        name: by which it goes in errors; empty for its own.
        settings: how it is run, :class:`bertd_server.inside.options.OpenOptions`.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
        bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
        CannotServeError: the provider or the memory is not there.
    """
    async with open_models(**settings) as models:
        yield await models.load(folder, name=name)
