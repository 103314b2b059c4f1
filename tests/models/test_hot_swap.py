"""What may go wrong as a repository changes under a server, and takes nothing down."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bertd import bundle
from bertd_server.engine.engine import Engine, EngineOptions
from bertd_server.engine.prepacking import FOLDER, prepacked
from bertd_server.models import startup
from bertd_server.models.calibration import Calibration
from bertd_server.models.startup import ModelOptions, Start, StartOptions
from bertd_server.serving.server import Server
from bertd_server.system.exits import Exit
from helpers.running import quick_settings

Serving = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """A server of a repository, which looks when it is told to."""

    @asynccontextmanager
    async def serve(start: Start = startup.start, **changes: Any) -> AsyncIterator[Server]:
        settings = quick_settings(
            repository=tmp_path,
            model_control="poll",
            poll_seconds=1e6,
            drain_seconds=900,  # far above the time of a test: nothing may need it
            cache_folder=tmp_path / ".cache",
            **changes,
        )
        server = Server(None, settings, start)
        await server.start()
        yield server
        assert await server.drain() is Exit.FINISHED  # also while a model retires

    return serve


def served(server: Server) -> list[tuple[str, str]]:
    return [(model.name, model.version) for model in server.catalogue.models()]


async def look(server: Server) -> None:
    assert server._keeper is not None
    await server._keeper.refresh()


async def test_what_is_away_for_a_moment_is_served_on(
    serving: Serving, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Between two renames a version, or a model, is not there; what stays away is unloaded."""
    for folder in ("a/1", "a/2", "b/1"):
        shutil.copytree(tiny_bundle, tmp_path / folder)
    async with serving() as server:
        assert served(server) == [("a", "2"), ("b", "1")]
        newest = server.catalogue.find("a")
        (tmp_path / "a/2").rename(tmp_path / ".aside")
        (tmp_path / "b").rename(tmp_path / ".b")
        await look(server)
        assert server.catalogue.find("a") is newest
        assert server.catalogue.find("b").version == "1"
        (tmp_path / ".aside").rename(tmp_path / "a/2")
        (tmp_path / ".b").rename(tmp_path / "b")
        await look(server)
        assert served(server) == [("a", "2"), ("b", "1")]
        assert server.catalogue.find("a") is newest
        shutil.rmtree(tmp_path / "a/2")
        shutil.rmtree(tmp_path / "b")
        await look(server)
        await look(server)
        assert served(server) == [("a", "1")]


async def test_a_graph_that_fails_as_it_runs_takes_nothing_down(
    serving: Serving, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Whatever is raised belongs to that version: others are loaded, and it is not tried again."""
    for folder in ("a/1", "b/1"):
        shutil.copytree(tiny_bundle, tmp_path / folder)
    tries = 0

    def start(
        folder: Path, manifest: bundle.Manifest, options: EngineOptions, starting: StartOptions
    ) -> tuple[Engine, Calibration]:
        nonlocal tries
        if folder.parent.name == "a":
            tries += 1
            raise RuntimeError("Non-zero status code returned while running Gather node")
        return startup.start(folder, manifest, options, starting)

    async with serving(start) as server:
        assert served(server) == [("b", "1")]
        await look(server)
        assert tries == 1
        assert server._keeper is not None
        assert "Gather" in server._keeper.index()[0].reason


async def test_a_version_whose_parts_do_not_fit_is_refused_and_the_old_one_goes_on(
    serving: Serving, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "a/1")
    async with serving() as server:
        shutil.copytree(tiny_bundle, tmp_path / ".new")
        manifest = bundle.read_manifest(tmp_path / ".new")
        lies = manifest.model_copy(update={"max_tokens": 10**9})
        bundle.write_manifest(tmp_path / ".new", lies)
        (tmp_path / ".new").rename(tmp_path / "a/2")
        await look(server)
        assert served(server) == [("a", "1")]
        assert server._keeper is not None
        reasons = {entry.version: entry.reason for entry in server._keeper.index()}
        assert "max_tokens is 1000000000" in reasons["2"]


async def test_a_reload_keeps_the_limits_that_are_a_models_own(
    serving: Serving, tiny_bundle: Path, tmp_path: Path
) -> None:
    """SIGHUP changes those of the server alone."""
    for name in ("a", "b"):
        shutil.copytree(tiny_bundle, tmp_path / name / "1")
    (tmp_path / "a/model.toml").write_text("max_queue_tokens = 1000\n")
    async with serving() as server:
        changes = {"max_queue_tokens": 5000, "max_queue_seconds": 3.0}
        changed = server.reloading.settings.model_copy(update=changes)
        server.reloading.reread = lambda: changed
        await server.reloading.reload()
        limits = [model.limits for model in server.catalogue.models()]
        assert [one.max_queue_tokens for one in limits] == [1000, 5000]
        assert [one.max_queue_seconds for one in limits] == [3.0, 3.0]


def test_what_is_replaced_while_it_is_loaded_is_not_served(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """A graph of one bundle may have met the weights of the other."""
    folder = tmp_path / "1"
    shutil.copytree(tiny_bundle, folder)

    def start(*given: Any) -> tuple[Engine, Calibration]:
        shutil.rmtree(folder)
        shutil.copytree(other_bundle, folder)
        return startup.start(*given)

    options = ModelOptions(starting=StartOptions(warmup_seconds=0, calibration_seconds=0.05))
    with pytest.raises(bundle.BundleError, match="was replaced while it was loaded"):
        startup.load(folder, options, start)


def test_prepacked_weights_of_another_bundle_are_not_kept(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """They would be mapped by every later server of the bundle whose name they had."""
    cache = tmp_path / "cache"
    with (
        pytest.raises(bundle.BundleError, match="was replaced"),
        prepacked(other_bundle, bundle.read_manifest(tiny_bundle), cache),
    ):
        pass
    assert [one.name for one in (cache / FOLDER).iterdir() if one.name != ".lock"] == []


@pytest.mark.usefixtures("unconfigured_structlog")
async def test_why_a_folder_is_no_model_is_said_once(
    serving: Serving, tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at each look; again when the reason is another one, or when it is back."""
    shutil.copytree(tiny_bundle, tmp_path / "m" / "1")
    (tmp_path / "not a model").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "m" / "2").mkdir()
    async with serving() as server:
        for _ in range(3):
            await look(server)
        said = caplog.text
        for words in ("'not a model' cannot be a folder", "has no version", "has no bertd.json"):
            assert said.count(words) == 1
        caplog.clear()
        (tmp_path / "m" / "2" / "bertd.json").mkdir()
        await look(server)
        await look(server)
        assert caplog.text.count("not a version") == 1
        (tmp_path / "not a model").rmdir()
        await look(server)
        (tmp_path / "not a model").mkdir()
        await look(server)
        assert caplog.text.count("'not a model' cannot be a folder") == 1
