"""Makes what is served equal to what is to be served, while calls go on.

::

    scan ──> wanted versions ──> load aside, verify, warm ──> swap: catalogue.put
                                      │ cannot be                    │
                                      v                              v
                             FAILED, with why;              the one before: retire
                             what served goes on serving    (no new calls, drain, forget)

One model is loaded at a time. A version that cannot be loaded takes nothing down: in its place the
ones that served before it stay, until there are others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bertd.bundle import BundleError

from bertd_server.errors import CannotLoad, CannotServeError, UnknownModel, Unsupported
from bertd_server.models import layout
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.layout import FoundModel, Version
from bertd_server.models.loading import Loader
from bertd_server.models.model import Model
from bertd_server.models.repository import IndexEntry
from bertd_server.models.said import Said
from bertd_server.system.logs import get_logger
from bertd_server.system.setting_types import ModelControl

log = get_logger("bertd")

_LOGGED = 128  # characters of a folder's name


class Keeper:
    """Serves the models of a repository. Use it on one event loop.

    Attributes:
        retiring: models that answer calls that found them before, and no others.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        root: Path,
        catalogue: Catalogue,
        loader: Loader,
        *,
        mode: ModelControl,
        poll_seconds: float,
        drain_seconds: Callable[[], float],
    ) -> None:
        """Serve nothing yet.

        Args:
            root: the folder of the repository.
            catalogue: what is served.
            loader: loads models.
            mode: whether calls, or changes of the folder, change what is served.
            poll_seconds: between two looks at the folder.
            drain_seconds: that a model which is unloaded has for the calls that it still answers.
        """
        self._root = root
        self._catalogue = catalogue
        self._loader = loader
        self._mode = mode
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._marks: dict[tuple[str, int], str] = {}  # of what is served
        self._refused: dict[tuple[str, int], tuple[Version, str]] = {}  # and why it did not load
        self._known: dict[str, FoundModel] = {}
        self._said = Said()
        self._gone: set[tuple[str, int]] = set()  # served, and not there at the last look
        self._spared: set[tuple[str, int]] = set()  # of these, those that were there before it
        self._no_room: set[tuple[str, int]] = set()  # refused for want of memory, perhaps for now
        self._loading: tuple[str, int] | None = None
        self._looking = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._poller: asyncio.Task[None] | None = None
        self.retiring: set[Model] = set()

    async def start(self, names: Iterable[str] = ()) -> None:
        """Load what is to be served at first.

        Args:
            names: of the models, in the mode `explicit`; `*` for all.

        Raises:
            CannotServeError: the folder cannot be read, or holds no model that can be served.
        """
        try:
            found = await asyncio.to_thread(layout.scan, self._root)
        except OSError as error:
            raise CannotServeError(
                f"--repository {self._root}: {error.strerror}; name a folder of models"
            ) from error
        wanted = set(names) if self._mode == "explicit" else {"*"}
        missing = wanted - {"*"} - found.keys()
        if missing:
            raise CannotServeError(
                f"--load-models: {', '.join(sorted(missing))} is not in {self._root}, which has "
                f"{', '.join(found) or 'no model'}"
            )
        self._known = found
        await self._say_problems(found)
        for name, model in found.items():
            if "*" in wanted or name in wanted:
                await self._update(model)
        if not self._catalogue.models() and self._mode == "none":
            raise CannotServeError(f"nothing to serve: {self._why_nothing(found)}")
        if self._mode == "poll":
            self._poller = asyncio.create_task(self._poll())

    def index(self) -> list[IndexEntry]:
        """All that is there, served or not, by name and version."""
        entries: dict[tuple[str, int], IndexEntry] = {}
        for name, found in self._known.items():
            for text, problem in found.problems.items():
                number = int(text or 0)
                entries[name, number] = IndexEntry(name, text, "UNAVAILABLE", problem)
            for number in found.versions:
                entries[name, number] = IndexEntry(name, str(number), "UNAVAILABLE", "not loaded")
        for (name, number), (_, why) in self._refused.items():
            entries[name, number] = IndexEntry(name, str(number), "UNAVAILABLE", why)
        for model in self.retiring:
            key = (model.name, int(model.version))
            entries[key] = IndexEntry(model.name, model.version, "UNLOADING")
        if self._loading is not None:
            name, number = self._loading
            entries[self._loading] = IndexEntry(name, str(number), "LOADING")
        for model in self._catalogue.models():  # also while another of the same version is loaded
            entries[model.name, int(model.version)] = IndexEntry(model.name, model.version, "READY")
        return [entries[key] for key in sorted(entries)]

    async def load(self, name: str) -> None:
        """Serve a model as it is on disk now: its newest bundles, by its own settings."""
        self._check_explicit("loaded")
        async with self._turn:
            try:
                found = await asyncio.to_thread(layout.look, self._root, name)
            except BundleError as error:
                raise UnknownModel(str(error)) from error
            if not found.versions and not (self._root / name).is_dir():
                raise UnknownModel(f"model {name!r} is not in the repository")
            self._known[name] = found
            for key in [key for key in self._refused if key[0] == name]:
                del self._refused[key]  # somebody asks again
            problems = await self._update_alone(found)
            if problems:
                raise CannotLoad(f"model {name!r}: {'; '.join(problems)}")

    async def unload(self, name: str) -> None:
        """Serve no version of a model any more; those who have found it get their answers."""
        self._check_explicit("unloaded")
        async with self._turn:
            served = self._catalogue.versions(name)
            if not served:
                raise UnknownModel(f"model {name!r} is not served, so it cannot be unloaded")
            for model in served:
                self._retire(model)
            self._catalogue.name(name, {})

    async def refresh(self) -> None:
        """Look at the folder, and serve what it holds now.

        What is gone is served until the next look: between two renames, as one puts another bundle
        in its place, there is none.
        """
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        found = await asyncio.to_thread(layout.scan, self._root)
        self._note_gone(found)
        for name in {one.name for one in self._catalogue.models()} - found.keys():
            async with self._turn:
                self._drop(FoundModel(name), [])
                if not self._catalogue.versions(name):
                    self._catalogue.name(name, {})
        self._known = found
        self._said.forget()
        await self._say_problems(found)
        for model in found.values():
            await self._update(model)

    async def _say_problems(self, found: dict[str, FoundModel]) -> None:
        """Log why folders are no models, or no versions of one."""
        for name, reason in (await asyncio.to_thread(layout.strangers, self._root)).items():
            self._said.warn("not a model", reason, folder=name[:_LOGGED])
        for model in found.values():
            for version, reason in model.problems.items():
                if version:  # the model's own settings are for :meth:`_update_alone`
                    self._said.warn("not a version", reason, model=model.name, version=version)

    def stop_looking(self) -> None:
        """Load nothing more by itself."""
        if self._poller is not None:
            self._poller.cancel()

    async def close(self, within: float) -> bool:
        """End what is retiring; whether it ended within so many seconds."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(self._tasks, timeout=within)
        return not pending

    def _check_explicit(self, done: str) -> None:
        if self._mode != "explicit":
            raise Unsupported(
                f"models cannot be {done} by a call, as --model-control is {self._mode}: "
                "start the server with --model-control explicit"
            )

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - the folder may be away for a while
                log.error("repository not read", folder=str(self._root), error=str(error))  # noqa: TRY400

    async def _update(self, found: FoundModel) -> None:
        async with self._turn:
            await self._update_alone(found)

    async def _update_alone(self, found: FoundModel) -> list[str]:
        """Serve a model as it was found; returns what is wrong with it."""
        if "" in found.problems:  # its settings: what is served stays
            problem = found.problems[""]
            self._said.warn("model not updated", problem, model=found.name)
            return [problem]
        wanted = found.wanted
        failed = []
        for number in wanted:
            problem = await self._serve(found, found.versions[number])
            if problem:
                failed.append(f"version {number}: {problem}")
        if not wanted:
            failed += [f"version {one}: {problem}" for one, problem in found.problems.items()]
            failed = failed or ["none of its versions is one that its settings want"]
        self._drop(found, wanted)
        self._name(found)
        return failed

    async def _serve(self, found: FoundModel, version: Version) -> str:
        """Load a version and let it answer; returns why it does not."""
        key = (found.name, version.number)
        if self._marks.get(key) == version.mark:
            return ""
        refused, why = self._refused.get(key, (None, ""))
        if refused == version:
            return why  # it was tried, and has not changed
        begin = time.monotonic()
        self._loading = key
        try:
            model = await self._loader.load_aside(
                version.folder, found.name, str(version.number), found.settings
            )
        except Exception as error:  # noqa: BLE001 - a graph that fails as it runs, among others
            return self._refuse(found, version, error)
        finally:
            self._loading = None
        self._refused.pop(key, None)
        self._marks[key] = version.mark
        before = self._catalogue.put(model)
        log.info(
            "model loaded",
            model=found.name,
            version=version.number,
            seconds=round(time.monotonic() - begin, 3),
        )
        if before is not None:
            self._let_go(before)
        return ""

    def _refuse(self, found: FoundModel, version: Version, error: Exception) -> str:
        """Note why a version does not load; it is not tried again before it has changed."""
        self._refused[found.name, version.number] = (version, str(error))
        if isinstance(error, CannotServeError | MemoryError):
            self._no_room.add((found.name, version.number))
        log.error("model not loaded", model=found.name, version=version.number, error=str(error))
        return str(error)

    def _drop(self, found: FoundModel, wanted: list[int]) -> None:
        """Retire versions that are not wanted any more, as far as others are there for them."""
        served = [int(one.version) for one in self._catalogue.versions(found.name)]
        broken = [int(folder) for folder in found.problems]  # being written anew, perhaps
        broken += [number for name, number in self._spared if name == found.name]
        kept = [number for number in served if number in wanted or number in broken]
        if isinstance(found.settings.versions, layout.Latest):
            # In the place of newer ones that do not load, the ones before them.
            older = sorted(set(served) - set(kept), reverse=True)
            kept += older[: len(wanted) - len(kept)]
        if not kept and wanted:
            return
        for model in self._catalogue.versions(found.name):
            if int(model.version) not in kept:
                self._retire(model)

    def _note_gone(self, found: dict[str, FoundModel]) -> None:
        """Note what is served and not there, and what of that may be back at the next look."""
        served = {(one.name, int(one.version)) for one in self._catalogue.models()}
        there = {
            (model.name, number)
            for model in found.values()
            for number in (*model.versions, *(int(folder or 0) for folder in model.problems))
        }
        gone = served - there
        self._spared, self._gone = gone - self._gone, gone

    def _name(self, found: FoundModel) -> None:
        aliases = {}
        for alias, version in found.settings.aliases.items():
            if alias in self._known:
                reason = "a model has it"
                self._said.warn("alias not given", reason, model=found.name, alias=alias)
            elif self._catalogue.means(alias) not in {"", found.name}:
                reason = f"{self._catalogue.means(alias)} has it"
                self._said.warn("alias not given", reason, model=found.name, alias=alias)
            else:
                aliases[alias] = str(version)
        self._catalogue.name(found.name, aliases)

    def _retire(self, model: Model) -> None:
        """Let a model answer no new calls, and forget it once the others have their answers."""
        self._catalogue.take(model.name, model.version)
        self._marks.pop((model.name, int(model.version)), None)
        self._let_go(model)

    def _let_go(self, model: Model) -> None:
        self.retiring.add(model)
        task = asyncio.create_task(self._end(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, model: Model) -> None:
        try:
            finished = await model.retire(self._drain_seconds())
        finally:
            self.retiring.discard(model)
            for key in self._no_room:  # there is more of it now
                self._refused.pop(key, None)
            self._no_room.clear()
        log.info(
            "model unloaded",
            model=model.name,
            version=model.version,
            finished=finished,
            texts=model.statistics.answered,
        )

    def _why_nothing(self, found: dict[str, FoundModel]) -> str:
        reasons = [
            f"{name}{' version ' + str(number) if number else ''}: {why}"
            for (name, number), why in [
                *(((n, int(v or 0)), p) for n, f in found.items() for v, p in f.problems.items()),
                *((key, why) for key, (_, why) in self._refused.items()),
            ]
        ]
        return "; ".join(reasons) or (
            f"{self._root} holds no model: export one into {self._root}/NAME/1"
        )
