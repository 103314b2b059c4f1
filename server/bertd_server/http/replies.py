"""Answers in JSON, put together piece by piece as :mod:`bertd_server.rpc.encoding` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from bertd_server.scheduling.executor import Steps

JSON = "application/json"
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


@dataclass(slots=True)
class HttpReply:
    """What is sent back."""

    body: bytes
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    content_type: str = JSON


def written(value: Any) -> bytes:
    """JSON of plain values and of arrays of numbers."""
    return orjson.dumps(value, option=_NUMPY)


def json_reply(value: Any, status: int = 200) -> HttpReply:
    """A small answer."""
    return HttpReply(written(value), status)


def listed(values: Iterable[Any]) -> Steps[bytes]:
    """A JSON list, an entry in each step."""
    pieces = []
    for value in values:
        pieces.append(written(value))
        yield
    return b"[%s]" % b",".join(pieces)


def within(name: str, values: Iterable[Any], rest: Mapping[str, Any]) -> Steps[bytes]:
    """A JSON object with a long list of that name; `rest` is all else of it, and never empty."""
    entries = yield from listed(values)
    return b'{"%s":%s,%s' % (name.encode(), entries, written(rest)[1:])
