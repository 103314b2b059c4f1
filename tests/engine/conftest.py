"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from bertd_export.bundle import export_model
from helpers.once import once
from helpers.tiny import save_tiny


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, exported once per run."""

    def make(folder: Path) -> None:
        export_model(str(save_tiny(folder / "source", "bert")), folder / "bundle")

    return once(tmp_path_factory, "small", make) / "bundle"
