"""The Python client of bertd, and the ``bertd`` command.

::

    from bertd_client import Client

    with Client("127.0.0.1:8001") as client:
        vectors = client.embed(["one text", "another"])
"""

from bertd_client.async_client import AsyncClient
from bertd_client.client import Client
from bertd_client.connection.security import Security
from bertd_client.errors import (
    BertdError,
    Cancelled,
    DeadlineExceeded,
    FieldViolation,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from bertd_client.tasks.results import (
    Answers,
    Candidate,
    Classification,
    Embedding,
    Entity,
    Filling,
    LabelScore,
    Mask,
    ModelInfo,
    Ranked,
    Span,
    Tagging,
    Token,
    TokenEmbeddings,
)

__all__ = [
    "Answers",
    "AsyncClient",
    "BertdError",
    "Cancelled",
    "Candidate",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "Embedding",
    "Entity",
    "FieldViolation",
    "Filling",
    "InvalidArgument",
    "LabelScore",
    "Mask",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Ranked",
    "Security",
    "ServerError",
    "Span",
    "Tagging",
    "Token",
    "TokenEmbeddings",
    "Unauthenticated",
    "Unavailable",
]
