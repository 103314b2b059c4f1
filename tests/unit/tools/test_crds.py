"""A field that a definition does not name is an error, at any depth."""

from typing import Any

from tools.crds import faults, schemas

SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "triggers": {
            "type": "array",
            "items": {"type": "object", "properties": {"type": {"type": "string"}}},
        },
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": True},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {}},
    },
}
DEFINITION = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "test.io",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"apiVersion": {}, "kind": {}, "spec": SPEC},
                    }
                },
            }
        ],
    },
}


def found(**spec: Any) -> list[str]:
    thing = {"apiVersion": "test.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec}
    return list(faults(thing, schemas([DEFINITION])))


def test_known_fields_are_taken_and_others_named() -> None:
    assert not found(triggers=[{"type": "cpu"}], metadata={"any": "x"}, raw={"any": 1}, port="grpc")
    (unknown,) = found(triggers=[{"typ": "cpu"}])
    assert "$.spec.triggers[0]" in unknown
    assert "'typ'" in unknown
    assert found(metadata={"any": 1})
    assert found(port=[])
