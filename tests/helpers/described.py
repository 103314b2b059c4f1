"""Answers over HTTP beside the OpenAPI document: each is what the document says of its path."""

from __future__ import annotations

import json
import re
from typing import Any

from openapi_schema_validator import OAS31Validator

JSON = "application/json"


class Described:
    """The document, and a validator for each schema that it has of an answer."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, str]] = set()
        """Of answers: method, path, and `200` or `default`."""
        self._paths = [
            (re.compile("(?:.+)".join(map(re.escape, re.split(r"\{\w+\}", path)))), path)
            for path in document["paths"]
        ]
        self._validators: dict[tuple[str, str, str], OAS31Validator] = {}

    def check(self, method: str, path: str, status: int, content_type: str, body: bytes) -> None:
        """Fail where an answer is none that the document promises; other paths are passed over."""
        place = path.partition("?")[0]
        found = next((one for known, one in self._paths if known.fullmatch(place)), None)
        if found is None or method.lower() not in self.document["paths"][found]:
            return
        key = method.lower(), found, "200" if status == 200 else "default"
        contents = self.document["paths"][found][key[0]]["responses"][key[2]]["content"]
        assert content_type in contents, (key, content_type)
        self.seen.add(key)
        if content_type != JSON:
            return
        if key not in self._validators:
            schema = {**contents[JSON]["schema"], "components": self.document["components"]}
            self._validators[key] = OAS31Validator(schema)
        for error in self._validators[key].iter_errors(json.loads(body)):
            raise AssertionError(f"{key}: {error.json_path}: {error.message}, {body[:300]!r}")
