"""The OpenAPI document, from the routes and models that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bertd
from pydantic.json_schema import models_json_schema

from bertd_server.http.call import HttpCall
from bertd_server.http.failures import openai_form
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, json_reply

PATH = "/openapi.json"
_REFERENCES = "#/components/schemas/{model}"


def route_of(routes: Sequence[Route]) -> Route:
    """What serves the document that lists these routes."""
    made: list[dict[str, Any]] = []

    async def answer(_call: HttpCall, _body: bytes) -> HttpReply:
        if not made:
            made.append(document(routes))
        return json_reply(made[0])

    return Route("GET", PATH, answer, openai_form, "this document", scope=None)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """What answers where, and to what."""
    bodies = sorted({one.body for one in routes if one.body}, key=lambda body: body.__name__)
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=_REFERENCES
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in routes:
        paths.setdefault(one.path.replace(":path}", "}"), {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bertd",
            "version": bertd.__version__,
            "description": "HTTP beside gRPC: docs/http.md",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    places = [part.split("}")[0].split(":")[0] for part in route.path.split("{")[1:]]
    found: dict[str, Any] = {
        "summary": route.meaning,
        "responses": {
            "200": {"description": "the answer"},
            "default": {"description": "an error, with field, limit and remedy"},
        },
    }
    if places:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in places
        ]
    schema = route.schema
    if route.body is not None:
        schema = {"$ref": _REFERENCES.format(model=route.body.__name__)}
    if schema is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if not route.public:
        found["security"] = [{}, {"key": []}]
    return found
