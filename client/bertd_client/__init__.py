"""The Python client of bertd, and the ``bertd`` command.

::

    from bertd_client import Client

    with Client("127.0.0.1:8001") as client:
        vectors = client.embed(["one text", "another"])
"""

from bertd_client import results
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
    WrongTask,
)
from bertd_client.results import *  # noqa: F403 - what it lists is public

__all__ = [
    "AsyncClient",
    "BertdError",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "FieldViolation",
    "InvalidArgument",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Security",
    "ServerError",
    "Unauthenticated",
    "Unavailable",
    "WrongTask",
]
__all__ += results.__all__
