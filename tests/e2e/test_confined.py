"""A server that has a part of the machine takes no more: affinity, and a real cgroup."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bertd_client import Client
from bertd_server.system import cgroups
from helpers.restartable import RestartableServer, quick

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has affinity and cgroups")

JOIN = "import os, pathlib\npathlib.Path({!r}).write_text(str(os.getpid()))\n"
ASK = "from bertd_server.system import cpu\nprint(cpu.usable_threads())\n"


def test_a_server_on_one_core_has_one_lane_and_stays_there(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """As under `taskset`: all of its threads, those of ONNX Runtime and gRPC included."""
    core = max(os.sched_getaffinity(0))
    server = RestartableServer(
        [str(tiny_bundle), *quick(tmp_path / "cache")],
        tmp_path / "log",
        before=f"import os\nos.sched_setaffinity(0, {{{core}}})",
    )
    try:
        server.start()
        assert counts(server) == (1, 1)
        with Client(server.address) as client:
            assert len(client.embed(["the cat sat", "on the mat"])) == 2
        masks = {
            line.split()[1]
            for status in Path(f"/proc/{server.pid}/task").glob("*/status")
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("Cpus_allowed_list:")
        }
        assert masks == {str(core)}
    finally:
        server.close()


class Group:
    """A cgroup of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.join = JOIN.format(str(folder / "cgroup.procs"))

    def limit(self, cores: float) -> None:
        if (self.folder / "cpu.max").exists():
            (self.folder / "cpu.max").write_text(f"{round(cores * 100_000)} 100000")
        else:
            (self.folder / "cpu.cfs_quota_us").write_text(str(round(cores * 100_000)))


@pytest.fixture
def group() -> Iterator[Group]:
    """A group with the CPU controller, directly below the root, of v2 or v1.

    Only where this process is in the root itself. Elsewhere somebody manages the group that it is
    in, and nobody else may make groups there (systemd's rule of the single writer).
    """
    own = dict(
        line.split(":", 2)[1:] for line in cgroups.OWN_GROUPS.read_text("utf-8").splitlines()
    )
    for controllers, mount in (("", cgroups.CGROUP_ROOT), ("cpu", cgroups.CGROUP_ROOT / "cpu")):
        offers = mount / ("cpu.cfs_quota_us" if controllers else "cgroup.controllers")
        if own.get(controllers) != "/" or not offers.is_file():
            continue
        if not controllers and "cpu" not in offers.read_text("ascii").split():
            continue
        folder = mount / f"bertd-test-{os.getpid()}"
        try:
            if not controllers:
                (mount / "cgroup.subtree_control").write_text("+cpu")
            folder.mkdir()
        except OSError:
            continue
        yield Group(folder)
        with contextlib.suppress(OSError):
            folder.rmdir()
        return
    pytest.skip("no cgroup with the CPU controller may be made here")


def test_a_server_in_a_cgroup_takes_its_quota(
    tiny_bundle: Path, tmp_path: Path, group: Group
) -> None:
    """Whole cores of the quota, and at least one; the kernel sees to the rest."""
    group.limit(1.5)
    server = RestartableServer(
        [str(tiny_bundle), *quick(tmp_path / "cache")], tmp_path / "log", before=group.join
    )
    try:
        server.start()
        assert str(server.pid) in (group.folder / "cgroup.procs").read_text("ascii").split()
        assert counts(server) == (1, 1)
        with Client(server.address) as client:
            assert len(client.embed(["the cat sat"])) == 1
    finally:
        server.close()
    cores = len(os.sched_getaffinity(0))
    for quota, threads in ((0.5, 1), (2.5, min(2, cores)), (cores + 0.5, cores)):
        group.limit(quota)
        asked = subprocess.run(
            [sys.executable, "-c", group.join + ASK], check=True, capture_output=True, text=True
        )
        assert int(asked.stdout) == threads, quota


def counts(server: RestartableServer) -> tuple[int, int]:
    """Lanes and threads of a server, as it says at its start."""
    (said,) = [one for one in server.events() if one["event"] == "serving"]
    return said["lanes"], said["threads"]
