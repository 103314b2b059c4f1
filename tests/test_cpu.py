"""Threads come from the quota and the affinity."""

import math
import os
from pathlib import Path

import pytest
from bertd_server import cpu


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
