"""A repository: what its folder says, and what is served of it while it changes."""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from bertd import bundle
from bertd.bundle import Task
from bertd_client import Client, NotFound
from bertd_client.errors import InvalidArgument
from bertd_server.errors import CannotServeError
from bertd_server.models import layout, startup
from bertd_server.models.layout import Latest, ModelSettings, wanted
from bertd_server.models.loading import Loader
from bertd_server.tasks.embedding import embed
from bertd_server.tokenization.reader import texts_of
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

TEXT = "the cat sat"


@given(st.sets(st.integers(1, 20)), st.integers(1, 5), st.lists(st.integers(1, 20)))
def test_a_policy_chooses_of_what_is_there(there: set[int], count: int, listed: list[int]) -> None:
    newest = sorted(there, reverse=True)
    assert wanted("all", there) == newest
    assert wanted(Latest(latest=count), there) == newest[:count]
    assert wanted(listed, there) == sorted(there & set(listed), reverse=True)


def put(source: Path, *where: Path) -> None:
    """A bundle in a repository, whole at once."""
    for folder in where:
        shutil.copytree(source, folder.parent / ".new")
        (folder.parent / ".new").rename(folder)


def spoil(folder: Path) -> None:
    """Change a bundle, but not what its manifest says of it."""
    graph = folder / bundle.GRAPH_NAME
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.unlink()
    graph.write_bytes(data)


@pytest.fixture
def second_bundle(task_bundle: Callable[[Task], Path]) -> Path:
    """Of other weights than the tiny one's."""
    return task_bundle("feature-extraction")


def test_every_setting_of_a_model_is_documented() -> None:
    text = (ROOT / "docs" / "repository.md").read_text(encoding="utf-8")
    for name in layout.ModelSettings.model_fields:
        assert f"`{name}`" in text


def test_a_folder_is_read_model_by_model(tmp_path: Path, tiny_bundle: Path) -> None:
    """What is not in order is said of the one that it concerns."""
    root = tmp_path / "root"
    for folder in ("good/2/", "good/notes", "empty", "no bundle", "half/1", "wild", ".git"):
        (root / folder).mkdir(parents=True)
    (root / "good" / "2").rmdir()
    put(tiny_bundle, root / "good" / "2", root / "good" / "10", tmp_path / "elsewhere")
    (root / "wild" / "1").symlink_to(tmp_path / "elsewhere")
    (root / "good" / "3").symlink_to("10")
    (root / "README").write_text("no folder")
    found = layout.scan(root)
    assert sorted(found) == ["empty", "good", "half", "wild"]
    assert found["good"].wanted == [10]
    assert sorted(found["good"].versions) == [2, 3, 10]
    assert not found["good"].problems
    assert found["good"].versions[3].folder == found["good"].versions[10].folder
    assert "export into a numbered folder" in found["empty"].problems[""]
    assert "is no bundle, or not yet" in found["half"].problems["1"]
    assert "leaves the repository" in found["wild"].problems["1"]
    before = found["good"].versions[10].mark
    for text, words in (
        ("versions = { latest = 0 }", "latest: Input should be greater than or equal to 1"),
        ("shar = 2", "shar: Extra inputs are not permitted"),
        ("versions = [", "Invalid value"),
        ("versions = " + "[" * 10_000, "nested too deep"),
        ("share = inf", "finite number"),
        ("cache_bytes = '" + "9" * 400 + "'", "no amount of memory"),
        ("#" * (2 << 20), "no file of at most"),
    ):
        (root / "good" / layout.SETTINGS_NAME).write_text(text)
        problem = layout.look(root, "good").problems[""]
        assert problem.startswith("model.toml: ")
        assert words in problem
    for text in ('versions = "all"', 'aliases.a = "latest"'):
        (root / "good" / layout.SETTINGS_NAME).write_text(text)
        assert layout.look(root, "good").versions[10].mark == before
    (root / "good" / layout.SETTINGS_NAME).write_text("max_queue_tokens = 5")
    assert layout.look(root, "good").versions[10].mark != before
    (tmp_path / "settings").write_text("max_queue_tokens = 5")
    for link, words in ((tmp_path / "settings", "leaves the repository"), ("/dev/zero", "leaves")):
        (root / "good" / layout.SETTINGS_NAME).unlink()
        (root / "good" / layout.SETTINGS_NAME).symlink_to(link)
        assert words in layout.look(root, "good").problems[""]
    (root / "half" / "1" / "bertd.json").symlink_to("/dev/zero")
    assert "leaves the bundle" in layout.look(root, "half").problems["1"]


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[tuple[RunningServer, Client, Any]]:
    """A server of a repository, its client, and Triton's on the management address."""
    given = quick_settings(
        repository=root, management_address="127.0.0.1:0", drain_seconds=10, **settings
    )
    running = RunningServer(None, given)
    managing = triton.InferenceServerClient(f"127.0.0.1:{running.server.management_port}")
    try:
        with Client(running.address) as client:
            yield running, client, managing
    finally:
        managing.close()
        running.stop()


def vector(client: Client, model: str = "m") -> np.ndarray:
    embedded: np.ndarray = client.embed([TEXT], model=model)[0]
    return embedded


def states(managing: Any) -> dict[tuple[str, str], str]:
    index = managing.get_model_repository_index().models
    return {(one.name, one.version): one.state for one in index}


def test_models_are_loaded_swapped_and_unloaded_by_calls(
    tmp_path: Path, tiny_bundle: Path, second_bundle: Path
) -> None:
    """A version that is not in order takes nothing down, at whichever step it fails."""
    root = tmp_path
    put(tiny_bundle, root / "m" / "1", root / "other" / "1")
    with serving(root, model_control="explicit", load_models="m") as (running, client, managing):
        first = vector(client)
        assert states(managing) == {("m", "1"): "READY", ("other", "1"): "UNAVAILABLE"}
        with pytest.raises(NotFound, match="model 'other' is not served; served: m"):
            vector(client, "other")
        managing.load_model("other")
        with pytest.raises(InvalidArgument, match="name one of m, other"):
            client.embed([TEXT])
        assert np.array_equal(vector(client, "other"), first)

        put(second_bundle, root / "m" / "2")
        spoil(root / "m" / "2")
        with pytest.raises(
            InferenceServerException, match=r"version 2: .*is not the file"
        ) as caught:
            managing.load_model("m")
        assert "FAILED_PRECONDITION" in caught.value.status()
        assert np.array_equal(vector(client), first)
        (index,) = [
            one
            for one in managing.get_model_repository_index().models
            if (one.name, one.version) == ("m", "2")
        ]
        assert index.state == "UNAVAILABLE"
        assert "is not the file" in index.reason

        shutil.rmtree(root / "m" / "2")
        put(second_bundle, root / "m" / "2")
        old = weakref.ref(running.server.catalogue.find("m"))
        managing.load_model("m")
        second = vector(client)
        assert second.shape != first.shape or not np.array_equal(second, first)
        (described,) = [one for one in client.list_models() if one.name == "m"]
        assert described.version == "2"
        wait(lambda: ("m", "1") not in states(managing) or states(managing)["m", "1"] != "READY")
        wait(lambda: gone(old))

        with grpc.insecure_channel(running.address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its types lack Check
            check = health.Check
            known = health_pb2.HealthCheckRequest(service="models/m")
            assert check(known).status == health_pb2.HealthCheckResponse.SERVING
            managing.unload_model("m")
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                check(known)
        with pytest.raises(NotFound):
            vector(client, "m")
        assert np.array_equal(vector(client, ""), first)  # the only one that is left
        with pytest.raises(InferenceServerException, match="is not served, so it cannot be"):
            managing.unload_model("m")
        for name in ("nobody", "../m", ""):
            with pytest.raises(InferenceServerException) as caught:
                managing.load_model(name)
            assert "NOT_FOUND" in caught.value.status()


def gone(model: weakref.ref[Any]) -> bool:
    """Whether a model is freed, without a collection that would break cycles."""
    gc.disable()
    try:
        return model() is None
    finally:
        gc.enable()


def wait(until: Callable[[], bool]) -> None:
    """For what happens beside calls."""
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_versions_aliases_and_the_default(
    tmp_path: Path, tiny_bundle: Path, second_bundle: Path
) -> None:
    """Several versions at once; a name for one of them; a broken one is passed over."""
    put(tiny_bundle, tmp_path / "m" / "1", tmp_path / "m" / "2", tmp_path / "spare" / "7")
    put(second_bundle, tmp_path / "m" / "3", tmp_path / "m" / "4")
    spoil(tmp_path / "m" / "4")
    (tmp_path / "m" / layout.SETTINGS_NAME).write_text(
        'versions = "all"\nshare = 2\nmax_queue_tokens = 77\n'
        '[aliases]\nstable = 1\nnewest = "latest"\nspare = 2\nnone = 9\n'
    )
    with serving(tmp_path, default_model="stable") as (running, client, managing):
        assert [(one.name, one.version) for one in client.list_models()] == [
            ("m", "1"), ("m", "2"), ("m", "3"), ("spare", "7"),
        ]  # fmt: skip
        assert running.server.catalogue.find("m", "1").limits.max_queue_tokens == 77
        stable, newest = vector(client, "stable"), vector(client, "newest")
        assert np.array_equal(vector(client, ""), stable)
        assert np.array_equal(vector(client, "m"), newest)
        assert newest.shape != stable.shape or not np.array_equal(newest, stable)
        with pytest.raises(NotFound, match="model 'none' has no version '9'; served: 1, 2, 3"):
            vector(client, "none")
        tensor = triton.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[TEXT.encode()]], object))
        for version, expected in (("1", stable), ("3", newest), ("", newest)):
            result = managing.infer("m", [tensor], model_version=version)
            assert result.get_response().model_version == (version or "3")
            assert np.array_equal(result.as_numpy("sentence_embedding")[0], expected)
        for version in ("4", "01", "٣", "9" * 5000):  # the last is more than int() reads
            with pytest.raises(InferenceServerException, match=f"has no version '{version[:99]}"):
                managing.infer("m", [tensor], model_version=version)
        with pytest.raises(InferenceServerException, match="start the server with --model-control"):
            managing.load_model("m")


def test_a_folder_that_changes_is_followed(
    tmp_path: Path, tiny_bundle: Path, second_bundle: Path
) -> None:
    """New versions, versions anew, models that go; what is broken meanwhile serves on."""
    put(tiny_bundle, tmp_path / "m" / "1")
    with serving(tmp_path, model_control="poll", poll_seconds=0.02) as (running, client, managing):
        first = vector(client)
        put(second_bundle, tmp_path / "m" / "2", tmp_path / "late" / "1")
        wait(lambda: states(managing).get(("late", "1")) == "READY")
        wait(lambda: running.server.catalogue.find("m").version == "2")
        second = vector(client)
        assert np.array_equal(vector(client, "late"), second)

        (tmp_path / "m" / "2" / bundle.MANIFEST_NAME).rename(tmp_path / "kept")
        wait(lambda: any(len(one.reason) for one in managing.get_model_repository_index().models)
             or states(managing)["m", "1"] == "READY")  # fmt: skip
        assert np.array_equal(vector(client), second)
        (tmp_path / "kept").rename(tmp_path / "m" / "2" / bundle.MANIFEST_NAME)

        shutil.rmtree(tmp_path / "late")
        shutil.rmtree(tmp_path / "m" / "2")
        wait(lambda: ("late", "1") not in states(managing))
        wait(lambda: running.server.catalogue.find("m").version == "1")
        assert np.array_equal(vector(client), first)

        half = tmp_path / "m" / "3"  # copied file by file, the manifest before the weights
        shutil.copytree(second_bundle, half, ignore=shutil.ignore_patterns(bundle.WEIGHTS_NAME))
        wait(lambda: any("lacks" in m.reason for m in managing.get_model_repository_index().models))
        assert np.array_equal(vector(client), first)
        shutil.copy(second_bundle / bundle.WEIGHTS_NAME, half)
        wait(lambda: running.server.catalogue.find("m").version == "3")


def test_two_versions_must_fit_into_the_memory(tmp_path: Path, tiny_bundle: Path) -> None:
    """The new one is refused, and the one before it serves on."""
    put(tiny_bundle, tmp_path / "m" / "1")
    with serving(tmp_path, model_control="explicit", load_models="*") as (running, client, manages):
        first = vector(client)
        loader = running.server._loader
        loader.settings = loader.settings.model_copy(update={"memory_limit": 2**20})
        put(tiny_bundle, tmp_path / "m" / "2")
        with pytest.raises(InferenceServerException, match=r"version 2: memory_limit is 1 MiB"):
            manages.load_model("m")
        assert states(manages) == {("m", "1"): "READY", ("m", "2"): "UNAVAILABLE"}
        assert np.array_equal(vector(client), first)
        keeper = running.server._keeper
        assert keeper is not None
        assert keeper._no_room == {("m", 2)}
        manages.unload_model("m")
        wait(lambda: not keeper._no_room)  # there is room now: it is tried again
        assert not keeper._refused


async def test_limits_that_change_while_a_model_is_loaded_are_its_limits(tiny_bundle: Path) -> None:
    def begin(*bundle_and_options: Any) -> Any:
        loader.settings = quick_settings(max_queue_tokens=77, max_queue_seconds=7)
        return startup.start(*bundle_and_options)

    loader = Loader(quick_settings(), start=begin)
    model = await loader.load_aside(tiny_bundle, "m", "1", ModelSettings(max_queue_seconds=3))
    assert (model.limits.max_queue_tokens, model.limits.max_queue_seconds) == (77, 3)
    await model.drain()
    loader.close()


async def test_a_model_that_is_held_is_not_drained(tiny_bundle: Path) -> None:
    """It answers whoever found it before it was retired."""
    loader = Loader(quick_settings())
    model = await loader.load_aside(tiny_bundle, "m", "1")
    with model:
        retired = asyncio.create_task(model.retire())
        await asyncio.sleep(0)
        (reply,) = await embed(model, texts_of([TEXT]))
        assert not isinstance(reply.outcome, Exception)
        assert not retired.done()
    assert await retired
    loader.close()


def test_a_repository_with_nothing_to_serve_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    """With the reason; explicit starts with none, poll waits for some."""
    for name, words in (("none", "has no version"), ("bad", "is not the file")):
        root = tmp_path / name
        (root / "m").mkdir(parents=True)
        if name == "bad":
            put(tiny_bundle, root / "m" / "1")
            spoil(root / "m" / "1")
        with pytest.raises(CannotServeError, match=words):
            RunningServer(None, quick_settings(repository=root))
    with pytest.raises(CannotServeError, match="No such file"):
        RunningServer(None, quick_settings(repository=tmp_path / "nowhere"))
    explicit = {"model_control": "explicit", "load_models": "m, nobody"}
    with pytest.raises(CannotServeError, match=r"nobody is not in .* which has m"):
        RunningServer(None, quick_settings(repository=tmp_path / "bad", **explicit))
    with (
        serving(tmp_path / "none", model_control="poll") as (_, client, _managing),
        pytest.raises(NotFound, match="no model is served at this moment"),
    ):
        client.embed([TEXT])
