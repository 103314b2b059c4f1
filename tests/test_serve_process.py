"""`bertd serve` as a process: what it imports, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from bertd_client import Client


def test_sigterm_drains_and_exits_zero_and_torch_stays_out(bundle_folder: Path) -> None:
    """The process answers, never imports torch or transformers, and ends cleanly."""
    script = (
        "import sys, atexit, json\n"
        "atexit.register(lambda: print(json.dumps(sorted({m.partition('.')[0] for m in"
        " sys.modules}))))\n"
        "from bertd_client.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", str(bundle_folder), "--address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        started = json.loads(process.stderr.readline())
        assert started["event"] == "serving"
        with Client(started["address"]) as client:
            assert client.embed(["hello"]).shape == (1, 384)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    modules = json.loads(stdout)
    assert "onnxruntime" in modules
    assert not {"torch", "transformers"} & set(modules)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    """One line that says what to do, exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "bertd_client.cli", "serve", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not a bundle" in done.stderr
    assert "bertd export" in done.stderr
