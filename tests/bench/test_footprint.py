"""A serving install in an environment of its own: what is in it, and that it serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import bertd
import numpy as np
import pytest
from bertd_bench.contestants.eager import BenchError, ModelPair
from bertd_bench.harness import results
from bertd_bench.install import coldstart, document, footprint
from helpers.deployed import copied, image_environment
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RESULT = ROOT / "benchmarks/results/footprint.json"
FOREIGN = {"torch", "transformers", "onnx", "onnxscript", "safetensors", "pytest", "psutil"}


@pytest.fixture(scope="module")
def recorded() -> footprint.Footprint:
    return results.read(RESULT, footprint.Footprint, "footprint")


def test_the_list_is_what_the_requirements_ask_for(recorded: footprint.Footprint) -> None:
    """Followed from pyproject.toml through what is installed here, in the pinned versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left = [*project["dependencies"], *project["optional-dependencies"][footprint.EXTRA]]
    names: set[str] = {"bertd"}
    while left:
        wanted = Requirement(left.pop())
        name = canonicalize_name(wanted.name)
        extras = wanted.extras or {""}
        if name not in names and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            names.add(name)
            for text in distribution(name).requires or ():
                marker = Requirement(text).marker
                if marker is None or any(marker.evaluate({"extra": each}) for each in extras):
                    left.append(text.partition(";")[0])
    assert {package.name for package in recorded.packages} == names
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, str] = {
        canonicalize_name(n): v for n, _, v in (x.partition("==") for x in lines[1:])
    }
    listed = {package.name: package.version for package in recorded.packages}
    assert listed == {
        "bertd": bertd.__version__,
        **{name: pins[name] for name in names if name != "bertd"},
    }
    assert not FOREIGN & listed.keys()


# --- a fresh environment ---


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment with `.[server]`, from what the Containerfile copies alone."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0"]
    probe += ["--timeout", "15", "--dest", str(folder), "-c", str(ROOT / "constraints.txt")]
    asked = subprocess.run([*probe, "typing-extensions"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("pip has no package index here")
    yield footprint.install(source, folder / "environment")
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_fresh_install_is_what_is_listed(fresh: Path, recorded: footprint.Footprint) -> None:
    """Its size too, where Python and platform are those that were measured."""
    found = footprint.packages(fresh)
    assert not FOREIGN & {package.name for package in found}
    here = f"{sys.version_info.major}.{sys.version_info.minor}."
    measured = recorded.machine
    if not measured.versions["python"].startswith(here) or os.uname().machine != (
        measured.architecture
    ):
        pytest.skip(f"the list is for Python {measured.versions['python']}")
    versions = [[(one.name, one.version) for one in each] for each in (found, recorded.packages)]
    assert versions[0] == versions[1]
    ratio = sum(package.bytes for package in found) / 1e6 / recorded.megabytes
    assert ratio == pytest.approx(1, rel=0.02), "measure again: make footprint"


@pytest.mark.slow
def test_a_fresh_install_serves_and_asks(fresh: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """With the image's variables, from another folder; its own client gets an answer."""
    command = str(fresh.parent / "bertd")
    environment = {
        "PATH": os.defpath,
        "HOME": str(tmp_path / "home"),
        **image_environment(),
        "BERTD_ADDRESS": "127.0.0.1:0",
        "BERTD_HTTP_ADDRESS": "127.0.0.1:0",
        "BERTD_CACHE_FOLDER": str(tmp_path / "cache"),
        "BERTD_CALIBRATION_SECONDS": "0.1",
        "BERTD_WARMUP_SECONDS": "0",
    }
    with subprocess.Popen(
        [command, "serve", str(tiny_bundle)],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            _, started = (json.loads(server.stderr.readline()) for _ in range(2))
            asked = subprocess.run(
                [command, "embed", "hello", "--format", "jsonl", "--address", started["address"]],
                env={"PATH": os.defpath},
                capture_output=True,
                text=True,
                check=False,
            )
            assert asked.returncode == 0, asked.stderr
            assert json.loads(asked.stdout)["text"] == "hello"
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
            assert not (tmp_path / "home").exists()  # all that it keeps is in the cache folder
        finally:
            server.kill()
    missing = subprocess.run(
        [command, "export", "model", "--output", "out"],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode != 0
    assert "bertd[export]" in missing.stderr


def test_what_pip_says_is_told(tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "pyproject.toml").write_text("no toml\n", encoding="utf-8")
    (tmp_path / "constraints.txt").touch()
    with pytest.raises(BenchError, match="pip could not install"):
        footprint.install(tmp_path, tmp_path / "environment")


def test_cold_starts_are_told_where_they_were_measured(recorded: footprint.Footprint) -> None:
    """By medians; whoever answers something else is not timed."""
    starts = {coldstart.SCRIPT: [5_000_000_000] * 3, coldstart.SERVER: [900_000_000] * 3}
    said = document.sentence(recorded.model_copy(update={"starts": starts}), "x.json")
    assert "right answer: 0.9 s of bertd serve against 5.0 s of PyTorch script." in said
    assert "right answer" not in document.sentence(recorded.model_copy(update={"starts": {}}), "x")
    coldstart.check(np.ones(3, np.float32), np.full(3, 0.5, np.float32))
    with pytest.raises(BenchError, match="first answer of bertd serve"):
        coldstart.check(np.ones(3, np.float32), np.eye(3, dtype=np.float32)[0])


@pytest.mark.slow
def test_both_cold_starts_give_the_same_answer(tiny_bundle: Path) -> None:
    """The whole way: a server and a script, each from exec."""
    model = ModelPair(str(tiny_bundle.with_name("checkpoint")), tiny_bundle)
    found = coldstart.measure(model, 1, runs=1)
    assert {name: len(samples) for name, samples in found.items()} == {
        coldstart.SCRIPT: 1,
        coldstart.SERVER: 1,
    }
