"""What users install: the wheel has what they run, and no benchmarks."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from bertd_client import cli
from click.testing import CliRunner
from helpers.paths import ROOT

PACKAGES = {"bertd", "bertd_client", "bertd_export", "bertd_ray", "bertd_server", "bertd_spark"}


@pytest.mark.slow
def test_a_wheel_has_no_benchmarks(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--retries", "0"]
    made = subprocess.run(
        [*build, "--timeout", "15", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "hatchling" in made.stderr:
        pytest.skip("pip has no package index here")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == PACKAGES


def test_a_checkout_has_all_commands() -> None:
    """An editable install imports from the folders of all packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["hatch"]["build"]["dev-mode-dirs"]
    packages = {
        path.parent.name for folder in folders for path in (ROOT / folder).glob("*/__init__.py")
    }
    assert packages == PACKAGES | {"bertd_bench"}
    assert set(cli._entries()) == project["project"]["entry-points"]["bertd.commands"].keys()


def test_a_command_of_a_package_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "bertd_bench" else True)
    assert "bench" not in CliRunner().invoke(cli.main, ["--help"]).output
    assert "No such command" in CliRunner().invoke(cli.main, ["bench"]).stderr
