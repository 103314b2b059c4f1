"""Models for threads: the same, on an event loop in a thread of its own until they are closed.

::

    any thread ──method──> wait ──run_coroutine_threadsafe──> thread "bertd-loop": OpenModels
         └──────────────────────<── value or error ──────────────────┘

Any number of threads may ask at once: what they ask goes into the same batches.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from bertd.bundle import Manifest

from bertd_server.errors import Draining
from bertd_server.inside.methods import ModelMethods
from bertd_server.inside.models import OpenModel, OpenModels
from bertd_server.inside.options import LoadOptions, OpenOptions
from bertd_server.models.model import Model

R = TypeVar("R")


class _Loop:
    """An event loop in a thread; the process ends without waiting for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(begun)), name="bertd-loop", daemon=True
        )
        self._thread.start()
        self._loop = begun.result()

    async def _main(self, begun: Future[asyncio.AbstractEventLoop]) -> None:
        """Let others use the loop until it is told to end."""
        self._end = asyncio.Event()
        begun.set_result(asyncio.get_running_loop())
        await self._end.wait()

    def run(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """The outcome of some work on the loop; whoever interrupts this cancels it.

        Raises:
            Draining: the loop was closed.
        """
        with self._lock:
            if self._closed:
                raise Draining("the models were closed: open them again")
            waiting = asyncio.run_coroutine_threadsafe(work(), self._loop)
        return _result(waiting)

    def close(self, last: Callable[[], Coroutine[Any, Any, R]], otherwise: R) -> R:
        """Run the last work, then end; `otherwise` if that was done before."""
        with self._lock:
            if self._closed:
                return otherwise
            self._closed = True
            waiting = asyncio.run_coroutine_threadsafe(last(), self._loop)
        try:
            return _result(waiting)
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()


def _result(waiting: Future[R]) -> R:
    try:
        return waiting.result()
    except BaseException:  # an interrupt too, such as Ctrl-C
        waiting.cancel()
        raise


class SyncModel(ModelMethods):
    """A model that answers threads; :class:`OpenModel` says what its methods do and raise."""

    def __init__(self, model: OpenModel, loop: _Loop) -> None:
        self._model = model
        self._loop = loop

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

    def wait(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question that a function of :mod:`bertd_server.tasks` asks the model."""
        return self._loop.run(lambda: self._model.ask(question))

    def close(self) -> bool:
        """As :meth:`OpenModel.close`."""
        return self._loop.run(self._model.close)


class SyncModels:
    """Models that share lanes, for threads; :class:`OpenModels` says what its methods do."""

    def __init__(self, **settings: Unpack[OpenOptions]) -> None:
        """Start the thread of the event loop.

        Raises:
            SettingsError: there is no such setting, or it cannot have the value.
        """
        self._loop = _Loop()

        async def opened() -> OpenModels:
            return OpenModels(**settings)

        try:
            self._models = self._loop.run(opened)
        except BaseException:
            self._loop.close(_nothing, None)
            raise

    def load(
        self, folder: str | Path, *, name: str = "", version: str = "", **own: Unpack[LoadOptions]
    ) -> SyncModel:
        """As :meth:`OpenModels.load`."""

        async def loaded() -> OpenModel:
            return await self._models.load(folder, name=name, version=version, **own)

        return SyncModel(self._loop.run(loaded), self._loop)

    def find(self, name: str = "", version: str = "") -> SyncModel:
        """As :meth:`OpenModels.find`."""

        async def found() -> OpenModel:
            return self._models.find(name, version)

        return SyncModel(self._loop.run(found), self._loop)

    def unload(self, name: str, version: str = "") -> bool:
        """As :meth:`OpenModels.unload`."""
        return self._loop.run(lambda: self._models.unload(name, version))

    def close(self, within: float | None = None) -> bool:
        """As :meth:`OpenModels.close`; then the thread of the event loop has ended too."""
        return self._loop.close(lambda: self._models.close(within), otherwise=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _nothing() -> None:
    """Where there is nothing to close."""


def open_models_sync(**settings: Unpack[OpenOptions]) -> SyncModels:
    """Open a set of models for threads; use it with `with`.

    Args:
        settings: how models are run, :class:`bertd_server.inside.options.OpenOptions`.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
    """
    return SyncModels(**settings)


@contextmanager
def open_model_sync(
    folder: str | Path, *, name: str = "", **settings: Unpack[OpenOptions]
) -> Iterator[SyncModel]:
    """Open one model for threads; use it with `with`.

    ::

        with open_model_sync("bundles/minilm", lanes=2) as model:
            vectors = model.embed(["one text", "another"])

    Args:
        folder: the bundle.
        name: by which it goes in errors; empty for its own.
        settings: how it is run, :class:`bertd_server.inside.options.OpenOptions`.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
        bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
        CannotServeError: the provider or the memory is not there.
    """
    with open_models_sync(**settings) as models:
        yield models.load(folder, name=name)
