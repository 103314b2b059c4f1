"""The OpenAPI document, from the routes and models that answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import bertd
from pydantic.json_schema import models_json_schema

from bertd_server.http import answers
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import (
    Form,
    openai_form,
    ranking_form,
    status_form,
    tei_form,
    v2_form,
)
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, json_reply

PATH = "/openapi.json"
_REFERENCES = "#/components/schemas/{model}"
_JSON = "application/json"
# Of each form of errors: whose it is, its name in the document, its schema.
_ERRORS: dict[Form, tuple[str, str, answers.Schema]] = {
    openai_form: ("OpenAI", "OpenAiError", answers.OPENAI_ERROR),
    ranking_form: ("Cohere, Jina, Infinity", "RankingError", answers.RANKING_ERROR),
    tei_form: ("text-embeddings-inference, Hugging Face", "TeiError", answers.TEI_ERROR),
    v2_form: ("Open Inference Protocol", "InferenceError", answers.V2_ERROR),
    status_form: ("bertd.v1", "Status", answers.STATUS),
}


def route_of(routes: Sequence[Route]) -> Route:
    """What serves the document that lists these routes."""
    made: list[dict[str, Any]] = []

    async def answer(_call: HttpCall, _body: bytes) -> HttpReply:
        if not made:
            made.append(document(routes))
        return json_reply(made[0])

    return Route(
        "GET", PATH, answer, openai_form, "this document", scope=None, gives=answers.OBJECT
    )


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """What answers where, and to what."""
    bodies = sorted({one.body for one in routes if one.body}, key=lambda body: body.__name__)
    _, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template=_REFERENCES
    )
    paths: dict[str, dict[str, Any]] = {}
    names: Counter[str] = Counter()
    for one in routes:
        operation = _operation(one)
        name = "_".join(re.findall(r"[a-z0-9]+", f"{one.method} {one.path}".lower()))
        names[name] += 1  # a generator may not tell Embed from embed
        operation["operationId"] = f"{name}_{names[name]}" if names[name] > 1 else name
        paths.setdefault(one.path.replace(":path}", "}"), {})[one.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bertd",
            "version": bertd.__version__,
            "description": "HTTP beside gRPC: docs/http.md",
        },
        "tags": [{"name": whose} for whose, _, _ in _ERRORS.values()],
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {})
            | {name: schema for _, name, schema in _ERRORS.values()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    places = [part.split("}")[0].split(":")[0] for part in route.path.split("{")[1:]]
    whose, error, _ = _ERRORS[route.form]
    answered: dict[str, Any] = {_JSON: {"schema": route.gives or {}}}
    if route.binary:
        answered["application/octet-stream"] = {}
    refused = {_JSON: {"schema": {"$ref": _REFERENCES.format(model=error)}}}
    found: dict[str, Any] = {
        "summary": route.meaning,
        "tags": [whose],
        "responses": {
            "200": {"description": "the answer", "content": answered},
            "default": {
                "description": "an error, with field, limit and remedy",
                "content": refused,
            },
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
            "content": {_JSON: {"schema": schema}},
        }
    if not route.public:
        found["security"] = [{}, {"key": []}]
    return found
