"""The Python client of bertd, and the ``bertd`` command.

::

    from bertd_client import Client

    with Client("127.0.0.1:8001") as client:
        vectors = client.embed(["one text", "another"])
"""

from bertd_client.async_client import AsyncClient
from bertd_client.client import Client
from bertd_client.errors import (
    BertdError,
    Cancelled,
    DeadlineExceeded,
    FieldViolation,
    InvalidArgument,
    NotFound,
    Overloaded,
    ServerError,
    Unavailable,
)
from bertd_client.messages import Embedding, ModelInfo

__all__ = [
    "AsyncClient",
    "BertdError",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Embedding",
    "FieldViolation",
    "InvalidArgument",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "ServerError",
    "Unavailable",
]
