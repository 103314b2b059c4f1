"""ONNX Runtime's telemetry is off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bertd import telemetry
from bertd.bundle import GRAPH_NAME

SESSION = "import sys, {module}\nimport onnxruntime as ort\nort.InferenceSession(sys.argv[1])\n"


@pytest.mark.parametrize("module", ["bertd_server.engine.sessions", "bertd_export.graph.runtime"])
def test_a_session_leaves_no_trace_of_telemetry(
    module: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    """With telemetry on, an identifier and a database of events appear in the user's cache."""
    asked = subprocess.run(
        [sys.executable, "-c", SESSION.format(module=module), str(tiny_bundle / GRAPH_NAME)],
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert [path for path in tmp_path.rglob("*") if "Microsoft" in path.parts] == []


def test_whoever_has_chosen_keeps_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(telemetry.VARIABLE, "0")
    telemetry.refuse()
    assert os.environ[telemetry.VARIABLE] == "0"
    monkeypatch.delenv(telemetry.VARIABLE)
    telemetry.refuse()
    assert os.environ[telemetry.VARIABLE] == "1"
