"""The generated code belongs to the .proto files beside it."""

import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).resolve().parent.parent / "protos"


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing."""
    subprocess.run([sys.executable, str(PROTOS / "generate.py"), str(tmp_path)], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert made
    for path in made:
        assert (PROTOS / path).read_text() == (tmp_path / path).read_text(), path
