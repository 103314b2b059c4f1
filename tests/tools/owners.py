"""A public name has one owner: ``python tests/tools/owners.py`` names those that have several.

Types count (classes, protocols, aliases, type variables aside), whatever package they are in: a
reader who searches for one finds one. Generated code and re-exports do not count.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "bertd": "protos/bertd",
    "bertd_export": "export/bertd_export",
    "bertd_server": "server/bertd_server",
    "bertd_ray": "server/bertd_ray",
    "bertd_spark": "server/bertd_spark",
    "bertd_client": "client/bertd_client",
    "bertd_bench": "benchmarks/bertd_bench",
}

SPOKEN_BY_BOTH = frozenset(
    {
        "Aggregation",
        "Candidate",
        "Entity",
        "LabelScore",
        "LongText",
        "Mask",
        "Overloaded",
        "PermissionDenied",
        "Priority",
        "Ranked",
        "ScoreFunction",
        "Span",
        "Token",
        "Unauthenticated",
        "WrongTask",
    }
)
"""Words of the API that client and server both speak, each in a type of its own: neither may import
the other, and their users, who import one or the other, know the thing by that name."""
_BOTH_SIDES = ["bertd_client", "bertd_server"]


def types_of(module: ast.Module) -> Iterator[str]:
    """The public types that a module defines."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=name):
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_alias(name, value):
                pass
            case _:
                continue
        if not name.startswith("_"):
            yield name


def _is_alias(name: str, value: ast.expr) -> bool:
    """Whether an assignment names a type: `Rows = Literal[...]`, not a constant or a variable."""
    camel = name[0].isupper() and not name.isupper()
    return camel and isinstance(value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute)


def owners(root: Path, packages: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Where each public type is defined: package and path.

    Args:
        root: of the repository.
        packages: their folders below it, by name.
    """
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for package, folder in packages.items():
        for path in sorted((root / folder).rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                for name in types_of(ast.parse(path.read_text(encoding="utf-8"))):
                    found[name].append((package, str(path.relative_to(root))))
    return found


def several(found: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, list[str]]:
    """The names that have more owners than they may, and the paths of those."""
    return {
        name: [path for _, path in places]
        for name, places in sorted(found.items())
        if len(places) > 1
        and not (name in SPOKEN_BY_BOTH and sorted(package for package, _ in places) == _BOTH_SIDES)
    }


def main() -> None:
    """Print the names that have several owners, and fail if there are any."""
    found = several(owners(ROOT, PACKAGES))
    for name, places in found.items():
        print(f"{name}: {', '.join(places)}")
    if found:
        sys.exit(f"{len(found)} public types have several owners: rename all but one of each")


if __name__ == "__main__":
    main()
