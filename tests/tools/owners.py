"""A public name has one owner: ``python tests/tools/owners.py`` names those that have several.

Types count (classes, protocols, aliases, type variables aside), whatever package they are in: a
reader who searches for one finds one. Generated code and re-exports do not count.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protos/bertd", "export", "server", "client", "benchmarks/bertd_bench")


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


def owners() -> dict[str, list[str]]:
    """Where each public type is defined."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                for name in types_of(ast.parse(path.read_text(encoding="utf-8"))):
                    found[name].append(str(path.relative_to(ROOT)))
    return found


def main() -> None:
    """Print the names that have several owners, and fail if there are any."""
    several = {name: places for name, places in owners().items() if len(places) > 1}
    for name, places in sorted(several.items()):
        print(f"{name}: {', '.join(places)}")
    if several:
        sys.exit(f"{len(several)} public types have several owners: rename all but one of each")


if __name__ == "__main__":
    main()
