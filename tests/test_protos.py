"""The generated code, and the reference in docs/api.md, belong to the .proto files."""

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


def test_the_reference_is_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing in docs/api.md; what it writes is every comment."""
    document = PROTOS.parent / "docs" / "api.md"
    text = document.read_text(encoding="utf-8")
    copy = tmp_path / "api.md"
    copy.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, str(PROTOS / "document.py"), str(copy)], check=True)
    assert copy.read_text(encoding="utf-8") == text
    rows = [line for line in text.partition("<!-- generated")[2].splitlines() if "` = " in line]
    assert rows
    assert not [line for line in rows if line.endswith("|  |")]
