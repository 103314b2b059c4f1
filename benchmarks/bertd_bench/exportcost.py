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

_SIZES: dict[str, tuple[int, int, int]] = {  # hidden size, layers, heads
    "tiny": (32, 2, 4),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
_VOCABULARY = 30_522


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
                [sys.executable, "-m", "bertd_bench.exportcost", role, folder, size],
                check=True,
                stdout=subprocess.PIPE,
            )
    return ExportCost(**json.loads(done.stdout))


def _make(folder: Path, size: str) -> None:
    import torch  # noqa: PLC0415 - in the child alone
    from transformers import BertConfig, BertModel, BertTokenizer  # noqa: PLC0415 - the same

    hidden, layers, heads = _SIZES[size]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=_VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    BertModel(config).save_pretrained(folder / "checkpoint")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"w{number}" for number in range(_VOCABULARY - len(special)))]
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder / "checkpoint")


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
