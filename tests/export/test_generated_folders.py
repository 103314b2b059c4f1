"""Folders made at random: bertd answers from raw text as the reference library does, or refuses.

``FOLDERS`` is how many, ``FOLDERS_SEED`` which; ``make folders`` tries 300, in parts that xdist's
workers share. A run names all faults that it meets, not the first alone.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bertd_export.bundle import export_model
from helpers.folder_changes import LIMITS, POOLING, SENTENCE, setting
from helpers.folders import Plan, plans
from helpers.references import answered, difference, judged, reference
from hypothesis import HealthCheck, Phase, given, seed, settings

FOLDERS = int(os.environ.get("FOLDERS", "2"))
SEED = int(os.environ.get("FOLDERS_SEED", "0"))
PART = 25  # folders of one test
SIZES = [min(PART, FOLDERS - begin) for begin in range(0, FOLDERS, PART)]


@pytest.mark.timeout(120 + 60 * PART)
@pytest.mark.parametrize("part", range(len(SIZES)))
def test_a_folder_is_right_or_refused(
    part: int, tmp_path_factory: pytest.TempPathFactory, record_property: Callable[[str, Any], None]
) -> None:
    """Nothing in between: no other answer, no other error, no refusal without a name."""
    found: Counter[str] = Counter()
    faults: list[str] = []

    @seed(SEED + part)
    @settings(
        max_examples=SIZES[part],
        phases=[Phase.generate],  # to shrink a fault would take an export for each step
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(plans())
    def look(plan: Plan) -> None:
        verdict, why = judged(plan, tmp_path_factory.mktemp("folder"))
        found[verdict] += 1
        if verdict == "fault":
            faults.append(f"{plan}\n    {why}")

    look()
    record_property("folders", dict(found))  # for --junit-xml
    assert not faults, "\n".join([str(dict(found)), *faults])
    assert found["right"] > found.total() / 4, f"too few are right to say anything: {found}"


def test_another_answer_is_found(tmp_path: Path) -> None:
    """What is asked can tell a folder from one with another setting."""
    plan = Plan("sentence", "bert", 0, ("Normalize",), ())
    plan.write(tmp_path / "source")
    manifest = export_model(str(tmp_path / "source"), tmp_path / "bundle").manifest
    answers = answered(plan.kind, tmp_path / "bundle", tmp_path)
    assert difference(answers, reference(plan.kind, tmp_path / "source", manifest)) is None
    for change in (
        setting(POOLING, "pooling_mode", "cls"),
        setting(SENTENCE, "truncate_dim", 8),
        setting(LIMITS, "max_seq_length", 12),
    ):
        shutil.copytree(tmp_path / "source", tmp_path / change.slot)
        change.write(tmp_path / change.slot)
        others = reference(plan.kind, tmp_path / change.slot, manifest)
        assert difference(answers, others) is not None, change
