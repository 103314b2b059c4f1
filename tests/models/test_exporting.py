"""`bertd serve MODEL` with a checkpoint: which bundle it is, and that it is made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from bertd_server.cli import serve
from bertd_server.errors import MisusedError
from bertd_server.models import exporting
from bertd_server.models.exporting import CheckpointModel, ExportingError
from click.testing import CliRunner
from helpers.patience import PATIENCE


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Files as a checkpoint has them; what is in them is not looked at."""
    folder = tmp_path / "my model"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json"):
        (folder / name).write_text(name)
    return folder


def found(checkpoint: Path, *options: str) -> CheckpointModel:
    model = exporting.find(str(checkpoint), options)
    assert model is not None
    return model


def test_the_bundle_belongs_to_the_content_and_the_options(
    checkpoint: Path, tmp_path: Path
) -> None:
    first = found(checkpoint)
    assert first.name == "my-model"
    elsewhere = shutil.copytree(checkpoint, tmp_path / "copy" / "my model")
    assert found(elsewhere).folder(tmp_path) == first.folder(tmp_path)
    keys = {first.key, found(checkpoint, "--precision=int8").key}
    (checkpoint / ".git").mkdir()
    (checkpoint / ".git" / "HEAD").touch()
    (checkpoint / "checkpoint-500").mkdir()
    (checkpoint / "checkpoint-500" / "optimizer.pt").touch()
    assert found(checkpoint).key in keys
    (checkpoint / "1_Pooling" / "config.json").write_text("another")
    keys.add(found(checkpoint).key)
    assert len(keys) == 3


def test_a_hub_id_has_a_bundle_for_each_revision() -> None:
    main, other = (exporting.find("org/name", options) for options in ((), ("--revision=v2",)))
    assert main is not None
    assert other is not None
    assert (main.source, main.name) == ("org/name", "name")
    assert main.key != other.key


@pytest.mark.parametrize("model", ["file", "no such/folder/here", "/nowhere"])
def test_what_is_neither_is_misused(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MisusedError, match="bundle"):
        exporting.find(str(tmp_path / model))


def test_a_bundle_is_served_as_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    """And a folder of neither is refused where it is loaded."""
    assert exporting.find(str(tiny_bundle)) is None
    assert exporting.find(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{bundle}", "--precision", "int8"], "--precision=int8 is for a checkpoint"),
        (["--task", "summarisation"], "'summarisation' is none of feature-extraction, "),
        (["--repository", "{bundle}", "--revision", "v2"], "--revision=v2 is for a checkpoint"),
        (["{bundle}", "--repository", "{bundle}"], "MODEL and --repository: give one of them"),
    ],
)
def test_options_of_an_export_need_one(arguments: list[str], words: str, tiny_bundle: Path) -> None:
    result = CliRunner().invoke(serve, [one.format(bundle=tiny_bundle) for one in arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_without_the_extra_the_remedy_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_NEEDED", ("no_such_package",))
    result = CliRunner().invoke(serve, [str(checkpoint), "--cache-folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "pip install 'bertd[export]'" in result.output
    assert "no_such_package not installed" in result.output


def test_two_at_once_export_once(
    checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for the first and finds its bundle; a third has nothing to do."""
    model, ran = found(checkpoint), threading.Event()
    started: list[list[str]] = []
    go = tmp_path / "go"
    copy = (
        "import pathlib, shutil, sys, time\n"
        "while not pathlib.Path(sys.argv[3]).exists(): time.sleep(0.01)\n"
        "shutil.copytree(sys.argv[1], sys.argv[2])\n"
    )

    def popen(command: list[str], **_: Any) -> subprocess.Popen[bytes]:
        started.append(command)
        ran.set()
        output = command[command.index("--output") + 1]
        return really([sys.executable, "-c", copy, str(tiny_bundle), output, str(go)])

    really = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(exporting, "_NEEDED", ())
    waits = threading.Event()
    monkeypatch.setattr(exporting.Export, "_waits", lambda _: waits.set())
    exports = [exporting.begin(model, tmp_path) for _ in range(2)]
    threads = [threading.Thread(target=one.finish) for one in exports if one is not None]
    threads[0].start()
    assert ran.wait(PATIENCE)
    threads[1].start()
    assert waits.wait(PATIENCE)
    go.touch()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert exporting.begin(model, tmp_path) is None
    (command,) = started
    assert command[command.index("--name") + 1] == "my-model"
    assert [path.name for path in model.folder(tmp_path).parent.iterdir()] == [
        f"my-model-{model.key}"
    ]


def test_a_refused_export_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words stand above on standard error; what it wrote is gone."""
    really = subprocess.Popen
    refuse = [sys.executable, "-c", "raise SystemExit(1)"]
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: really(refuse))
    monkeypatch.setattr(exporting, "_NEEDED", ())
    model = found(checkpoint)
    export = exporting.begin(model, tmp_path)
    assert export is not None
    with pytest.raises(ExportingError, match=r"my model could not be exported \(exit code 1"):
        export.finish()
    assert not list(model.folder(tmp_path).parent.iterdir())
