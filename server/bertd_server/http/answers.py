"""What answers look like, as JSON schema: a part of the OpenAPI document, no part of answering.

Tests hold every answer that they get against it. Objects may have more than is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
"""Of fields that depend on the model."""


def listed(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def made(more: Mapping[str, Schema] | None = None, /, **fields: Schema) -> Schema:
    """An object whose fields are all there, and others that may be."""
    return {
        "type": "object",
        "required": list(fields),
        "properties": {**fields, **(more or {})},
    }


def either(*schemas: Schema) -> Schema:
    """One of several."""
    return {"anyOf": list(schemas)}


def or_null(of: Schema) -> Schema:
    """It, or null."""
    return either(of, {"type": "null"})


_VECTOR = listed(NUMBER)
_USAGE = made(prompt_tokens=INTEGER, total_tokens=INTEGER)
_BASE64: Schema = {"type": "string", "contentEncoding": "base64", "description": "float32"}

# OpenAI.
EMBEDDINGS = made(
    object=STRING,
    model=STRING,
    usage=_USAGE,
    data=listed(made(object=STRING, index=INTEGER, embedding=either(_VECTOR, _BASE64))),
)
MODEL = made(
    {"owned_by": STRING},
    id=STRING,
    object=STRING,
    created=INTEGER,
    backend=STRING,
    capabilities=listed(STRING),
    stats=OBJECT,
)
MODELS = made(object=STRING, data=listed(MODEL))

# Cohere, Jina, Infinity, or text-embeddings-inference.
_DOCUMENT = either(STRING, made(text=STRING))
RANKS = either(
    made(
        id=STRING,
        model=STRING,
        usage=_USAGE,
        results=listed(made({"document": _DOCUMENT}, index=INTEGER, relevance_score=NUMBER)),
    ),
    listed(made({"text": STRING}, index=INTEGER, score=NUMBER)),
)

# text-embeddings-inference.
VECTORS = listed(_VECTOR)
TOKEN_VECTORS = listed(VECTORS)
SPARSE = listed(listed(made(index=INTEGER, value=NUMBER)))
_LABELS = listed(made(label=STRING, score=NUMBER))
LABELS = either(_LABELS, listed(_LABELS))
COSINES = _VECTOR
TOKENS = listed(
    listed(
        made(
            id=INTEGER,
            text=STRING,
            special=BOOLEAN,
            start=or_null(INTEGER),
            stop=or_null(INTEGER),
        )
    )
)
TEXTS = listed(STRING)
INFO = made(
    model_id=STRING,
    model_type=OBJECT,
    max_concurrent_requests=INTEGER,
    max_input_length=INTEGER,
    max_batch_tokens=INTEGER,
    max_client_batch_size=INTEGER,
    tokenization_workers=INTEGER,
    version=STRING,
)
HEALTH = made(status=STRING, unix=NUMBER)

# Hugging Face: of each task what transformers' pipeline gives.
ANSWERS_OF_A_TASK = either(OBJECT, listed({}))

# The Open Inference Protocol; what its messages say is made of them.
LIVE = made(live=BOOLEAN)
READY = made(ready=BOOLEAN)
MODEL_READY = made(name=STRING, ready=BOOLEAN)
SERVER = made(name=STRING, version=STRING, extensions=listed(STRING))
INFERRED = made(
    {"id": STRING},
    model_name=STRING,
    model_version=STRING,
    outputs=listed(
        made(
            {"data": listed({}), "parameters": OBJECT},
            name=STRING,
            datatype=STRING,
            shape=listed(INTEGER),
        )
    ),
)
INDEX = listed(made(name=STRING, version=STRING, state=STRING, reason=STRING))
NOTHING = OBJECT

# Errors, in the form of each protocol.
OPENAI_ERROR = made(
    message=STRING,
    error=made(message=STRING, type=STRING, param=or_null(STRING), code=or_null(STRING)),
)
TEI_ERROR = made(error=STRING, error_type=STRING)
COHERE_ERROR = made({"detail": STRING, "error": STRING, "error_type": STRING}, message=STRING)
RANKING_ERROR = either(COHERE_ERROR, TEI_ERROR)
V2_ERROR = made(error=STRING)
STATUS = made({"details": listed(OBJECT)}, code=INTEGER, message=STRING)
