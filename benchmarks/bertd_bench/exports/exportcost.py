"""What an export costs: seconds and resident memory, for BERT with random weights.

Making the checkpoint and exporting it are processes of their own: the peak of one does not count
for the other.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Size = Literal["tiny", "base", "large"]


@dataclass(frozen=True)
class ExportCost:
    """What one export took, its comparison with PyTorch included."""

    seconds: float
    peak_bytes: int
    bundle_bytes: int


def measure_export(size: Size) -> ExportCost:
    """Make a checkpoint and export it, in a temporary folder.

    Raises:
        subprocess.CalledProcessError: one of the two processes failed; it said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        for role in ("make", "export"):
            done = subprocess.run(  # noqa: S603 - this very module
                [sys.executable, "-m", "bertd_bench.exports.exportcost", role, folder, size],
                check=True,
                stdout=subprocess.PIPE,
            )
    return ExportCost(**json.loads(done.stdout))


def _make(folder: Path, size: str) -> None:
    from bertd_bench.contestants.checkpoints import save_random  # noqa: PLC0415 - in the child alone

    save_random("bert", "feature-extraction", size, folder / "checkpoint")


def _export(folder: Path) -> ExportCost:
    from bertd_export.bundle import export_model  # noqa: PLC0415 - in the child alone

    summary = export_model(str(folder / "checkpoint"), folder / "bundle")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return ExportCost(summary.seconds, peak * unit, summary.bytes)


def _main() -> None:
    role, folder, size = sys.argv[1:]
    if role == "make":
        _make(Path(folder), size)
    else:
        sys.stdout.write(json.dumps(vars(_export(Path(folder)))))


if __name__ == "__main__":
    _main()
