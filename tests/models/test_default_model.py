"""The embedded default model is exported once; a second start has nothing of that to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bertd import bundle
from bertd_server.models import default_model
from bertd_server.models.exporting import CheckpointModel, ExportingError
from helpers.paths import ROOT


@pytest.fixture
def cached(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the user that holds the exported model."""
    folder = tmp_path / "cache" / "all-MiniLM-L6-v2"
    shutil.copytree(bundle_folder, folder)
    monkeypatch.setattr(CheckpointModel, "folder", lambda *_: folder)
    return folder


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were started; each "export" puts nothing in place and fails."""
    started: list[list[str]] = []

    def popen(command: list[str], **_: Any) -> subprocess.Popen[bytes]:
        started.append(command)
        return really([sys.executable, "-c", "raise SystemExit(3)"])

    really = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    return started


def test_a_whole_bundle_is_not_exported_again(cached: Path, exports: list[list[str]]) -> None:
    """No process is started."""
    assert default_model.ensure_bundle() == cached
    assert not exports


@pytest.mark.parametrize("name", [bundle.WEIGHTS_NAME, bundle.MANIFEST_NAME])
def test_a_bundle_that_is_cut_short_is_exported_again(
    cached: Path, exports: list[list[str]], name: str
) -> None:
    """It is replaced rather than refused at every start; a failed export is said."""
    with (cached / name).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ExportingError, match="exit code 3"):
        default_model.ensure_bundle()
    assert exports[0][-1] == "--force"


def test_the_first_start_exports_into_the_users_cache(
    exports: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is named for the versions that made it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ExportingError):
        default_model.ensure_bundle()
    (command,) = exports
    output = Path(command[command.index("--output") + 1])
    assert output == default_model.bundle_folder()
    assert f"format-{bundle.FORMAT_VERSION}" in output.parent.name
    assert "--force" not in command


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_a_second_make_serve_starts_the_server_and_nothing_else(tmp_path: Path) -> None:
    """No pip, no venv: what make would run is one command."""
    make = shutil.which("make")
    assert make is not None
    # The tests may themselves run under make, with flags that are not for this one.
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}

    def commands() -> list[str]:
        dry_run = [make, "--dry-run", "--no-print-directory", "serve", f"VENV={tmp_path}"]
        done = subprocess.run(
            dry_run, cwd=ROOT, env=alone, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert any("pip install" in line for line in commands())
    for stamp in (".serves", ".native"):
        (tmp_path / stamp).touch()
    assert commands() == [f"exec {tmp_path}/bin/bertd serve"]
