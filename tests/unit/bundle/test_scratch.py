"""Folders that are being written: swept once nobody holds them, and not before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bertd.bundle import scratch

WRITER = (
    "import sys, signal\n"
    "from pathlib import Path\n"
    "from bertd.bundle import scratch\n"
    "with scratch.made(Path(sys.argv[1]), '.b.') as folder:\n"
    "    (folder / 'half').write_text('x')\n"
    "    print(folder.name, flush=True)\n"
    "    signal.pause()\n"
)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks")
def test_what_a_killed_process_left_is_swept_and_what_others_write_is_not(tmp_path: Path) -> None:
    for name in (".b.notes", ".c.abcdefgh", "b", ".b.abcdefgh.old"):
        (tmp_path / name).mkdir()
    (tmp_path / ".b.12345678").touch()  # no folder of ours
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with (
        scratch.made(tmp_path, ".b.") as mine,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer,
    ):
        assert writer.stdout is not None
        theirs = writer.stdout.readline().strip()
        assert not scratch.swept(tmp_path, ".b.")
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert scratch.swept(tmp_path, ".b.") == [theirs]
        assert mine.is_dir()
    assert not mine.exists()
    assert scratch.swept(tmp_path, ".b.", r"\.old") == [".b.abcdefgh.old"]
    assert len(list(tmp_path.iterdir())) == 4


def test_what_is_put_into_its_place_stays(tmp_path: Path) -> None:
    with scratch.made(tmp_path, ".b.") as folder:
        folder.rename(tmp_path / "b")
    assert (tmp_path / "b").is_dir()
    assert not scratch.swept(tmp_path / "nowhere", ".b.")
