"""Threads come from the quota and the affinity, the memory limit from the cgroup."""

import math
import os
from pathlib import Path

import pytest
from bertd_server.system import cgroups, cpu


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", math.inf), ("150000 100000", 1.5), ("50000 100000", 0.5)]
)
def test_quota_of_cgroup_v2(tmp_path: Path, content: str, cores: float) -> None:
    """`cpu.max` holds quota and period."""
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert cpu.quota_cores(tmp_path) == cores
    assert cpu.usable_threads(tmp_path) == max(
        1, min(len(os.sched_getaffinity(0)), math.floor(min(cores, 1e6)))
    )


def test_no_cgroup_means_no_quota(tmp_path: Path) -> None:
    """Outside a container the affinity alone counts."""
    assert cpu.quota_cores(tmp_path) == math.inf
    assert cpu.usable_threads(tmp_path) == len(os.sched_getaffinity(0))


SERVICE = "/system.slice/bertd.service"


def write_v2(group: Path, content: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(content + "\n")


def write_v1(group: Path, quota: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    """As `CPUQuota=` of a systemd service, or of the slice that it is in, sets it."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text(f"0::{SERVICE}\n")
    write_v2(root / SERVICE[1:], "300000 100000")
    assert cpu.quota_cores(root, own) == 3.0
    assert cpu.usable_threads(root, own) == min(len(os.sched_getaffinity(0)), 3)
    write_v2(root / "system.slice", "150000 100000")
    assert cpu.quota_cores(root, own) == 1.5
    write_v2(root / "system.slice", "max 100000")
    write_v2(root / "user.slice", "10000 100000")  # others' quotas are not ours
    assert cpu.quota_cores(root, own) == 3.0


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quota_of_cgroup_v1_beside_v2(tmp_path: Path, mount: str) -> None:
    """The line that names the controller gives the group; other controllers' groups do not."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text(f"4:memory:/elsewhere\n3:cpu,cpuacct:{SERVICE}\n0::{SERVICE}\n")
    write_v1(root / mount, -1)
    write_v1(root / mount / SERVICE[1:], 250_000)
    write_v1(root / mount / "elsewhere", 50_000)
    assert cpu.quota_cores(root, own) == 2.5
    write_v2(root / "unified" / SERVICE[1:], "200000 100000")
    assert cpu.quota_cores(root, own) == 2.0


@pytest.mark.parametrize("path", ["/docker/1a2b", "/../other"])
def test_a_group_that_the_mount_does_not_show_leaves_the_root(tmp_path: Path, path: str) -> None:
    """In a container the mount may begin at its own group, whatever that is called outside."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text(f"0::{path}\n")
    write_v2(root, "200000 100000")
    assert cpu.quota_cores(root, own) == 2.0


def test_the_memory_limit_is_nine_tenths_of_the_least_on_the_way_up(tmp_path: Path) -> None:
    """Of v2, of v1, of both; one that says "max", or the number that means it in v1, is none."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text(f"4:memory:{SERVICE}\n3:cpu:/\n0::{SERVICE}\n")
    assert cgroups.memory_limit(root, own) == 0
    for group, name, content in (
        (SERVICE, "memory.max", "max"),
        ("/memory", "memory.limit_in_bytes", "9223372036854771712"),
    ):
        (root / group[1:]).mkdir(parents=True)
        (root / group[1:] / name).write_text(content + "\n")
    assert cgroups.memory_limit(root, own) == 0
    (root / SERVICE[1:] / "memory.max").write_text("2000000000\n")
    assert cgroups.memory_limit(root, own) == 1_800_000_000
    (root / "system.slice" / "memory.max").write_text("1000000000\n")
    assert cgroups.memory_limit(root, own) == 900_000_000
    (root / "memory" / SERVICE[1:]).mkdir(parents=True)
    (root / "memory" / SERVICE[1:] / "memory.limit_in_bytes").write_text("500000000\n")
    assert cgroups.memory_limit(root, own) == 450_000_000
