"""The check that a public name has one owner, on small packages."""

import ast
from pathlib import Path

from tools.owners import owners, several, types_of

PACKAGES = {"bertd_server": "server", "bertd_client": "client", "bertd_export": "export"}


def wrong(root: Path, **sources: str) -> dict[str, list[str]]:
    """What the check says of packages of one module each."""
    for package, source in sources.items():
        (root / package).mkdir()
        (root / package / "module.py").write_text(source, encoding="utf-8")
    return several(owners(root, PACKAGES))


def test_only_public_types_count() -> None:
    source = """
class Batch: ...
class _Hidden: ...
Floats = NDArray[float]
Either = int | str
Same = Batch
LIMITS = Batch[int]
batch = Batch[int]
Made = Batch()
def Function(): ...
"""
    assert list(types_of(ast.parse(source))) == ["Batch", "Floats", "Either", "Same"]


def test_a_name_with_two_owners_is_told_with_their_paths(tmp_path: Path) -> None:
    found = wrong(
        tmp_path,
        server="class Batch: ...\nclass Engine: ...",
        export="class Batch: ...",
        client="from server.module import Engine",
    )
    assert found == {"Batch": ["server/module.py", "export/module.py"]}


def test_two_owners_in_one_package_are_two(tmp_path: Path) -> None:
    assert wrong(tmp_path, server="class Batch: ...\nBatch = list[int]")


def test_client_and_server_may_both_have_what_both_speak(tmp_path: Path) -> None:
    assert not wrong(tmp_path, server="class Span: ...", client="class Span: ...")


def test_nobody_else_may_have_what_they_speak(tmp_path: Path) -> None:
    source = "class Span: ..."
    assert "Span" in wrong(tmp_path, server=source, client=source, export=source)


def test_one_of_them_may_not_have_it_twice(tmp_path: Path) -> None:
    assert "Span" in wrong(tmp_path, server="class Span: ...\nSpan = list[int]")


def test_generated_code_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "api_pb2.py").write_text("class Batch: ...", encoding="utf-8")
    assert not wrong(tmp_path, client="class Batch: ...")
