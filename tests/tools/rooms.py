"""A package is cut into rooms: ``python tests/tools/rooms.py`` names modules that lie flat in one.

A module that is in no room has no place in the order of rooms, and the hall fills again. What may
lie flat is what stands above all rooms or below them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAT: Mapping[str, Collection[str]] = {
    "server/bertd_server": {"__init__", "cli", "errors"},
    "export/bertd_export": {"__init__", "cli", "bundle", "errors", "progress"},
    "benchmarks/bertd_bench": {"__init__", "cli", "options", "docs"},
}
"""The modules that may lie flat in each package."""


def misplaced(root: Path, flat: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The paths of the modules that lie flat in a package and may not.

    Args:
        root: of the repository.
        flat: which modules may, by the folder of their package.
    """
    for package, allowed in flat.items():
        for path in sorted((root / package).glob("*.py")):
            if path.stem not in allowed:
                yield str(path.relative_to(root))


def main() -> None:
    """Print the modules that belong into a room, and fail if there are any."""
    found = list(misplaced(ROOT, FLAT))
    for path in found:
        print(path)
    if found:
        sys.exit(f"{len(found)} modules lie flat in their package: move each into a room")


if __name__ == "__main__":
    main()
