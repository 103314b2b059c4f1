"""Our custom resources, held to CustomResourceDefinitions: an unknown field is an error.

::

    .venv/bin/python tests/tools/crds.py FILE…      # YAML files of the projects' releases

Every resource of deploy/ whose kind one of the files defines is checked; those of which none does
are named. It fails if one breaks its schema.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "kubernetes/keda/scaledobject.yaml",
    "kubernetes/monitoring/podmonitor.yaml",
    "kserve/runtime.yaml",
    "kserve/inference-service.yaml",
)
Schemas = dict[tuple[str, str], dict[str, Any]]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A definition's schema as JSON Schema in which fields that it does not name are errors."""
    found = {name: _inner(name, value) for name, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    return found


def _inner(name: str, value: Any) -> Any:
    if name == "properties":
        return {field: strict(each) for field, each in value.items()}
    if name in {"items", "additionalProperties", "not"} and isinstance(value, dict):
        return strict(value)
    return value


def schemas(documents: Sequence[Any]) -> Schemas:
    """By apiVersion and kind, of all versions that definitions have."""
    found: Schemas = {}
    for one in documents:
        if one and one["kind"] == "CustomResourceDefinition":
            spec = one["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def faults(resource: dict[str, Any], known: Schemas) -> Iterator[str]:
    """What is wrong with a resource by its schema."""
    schema = known[resource["apiVersion"], resource["kind"]]
    for error in jsonschema.Draft202012Validator(schema).iter_errors(resource):
        yield f"{error.json_path}: {error.message}"


def main() -> None:
    """Check, and print what was found."""
    known: Schemas = {}
    for path in sys.argv[1:]:
        known |= schemas(list(yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))))
    wrong = False
    for name in FILES:
        (resource,) = yaml.safe_load_all((ROOT / "deploy" / name).read_text(encoding="utf-8"))
        if (resource["apiVersion"], resource["kind"]) not in known:
            print(f"{name}: no definition of {resource['apiVersion']} {resource['kind']}")
            continue
        found = list(faults(resource, known))
        wrong = wrong or bool(found)
        print(f"{name}: {'; '.join(found) or 'valid'}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
