"""The check that no module lies flat in a package, on a small one."""

from pathlib import Path

from tools.rooms import misplaced


def test_a_module_outside_a_room_is_told_unless_it_may_be_there(tmp_path: Path) -> None:
    for name in ("cli.py", "queue.py", "engine/queue.py"):
        path = tmp_path / "package" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert list(misplaced(tmp_path, {"package": {"cli"}})) == ["package/queue.py"]


def test_a_package_without_any_is_in_order(tmp_path: Path) -> None:
    assert not list(misplaced(tmp_path, {"package": {"cli"}}))
