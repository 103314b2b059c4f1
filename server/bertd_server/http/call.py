"""A call over HTTP: what services are told of it, in the place of gRPC's context."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qs

import grpc
from google.rpc import status_pb2

from bertd_server.errors import InvalidInput
from bertd_server.rpc.status import NEVER, PUSHBACK
from bertd_server.rpc.tei.service import MODEL_KEY
from bertd_server.tasks.ask import CallContext

TIMEOUT, GRPC_TIMEOUT = "x-request-timeout-ms", "grpc-timeout"
_MILLISECONDS = (TIMEOUT, "connect-timeout-ms", "x-envoy-expected-rq-timeout-ms")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MOST_DIGITS = 10
_DETAILS = "grpc-status-details-bin"


class Aborted(Exception):
    """A service has ended its call with a status.

    Attributes:
        status: google.rpc.Status, with its details.
        in_vain: whether the same call would be refused again.
    """

    def __init__(self, status: status_pb2.Status, *, in_vain: bool) -> None:
        super().__init__(status.message)
        self.status = status
        self.in_vain = in_vain


class HttpCall:
    """A call. Services see of it what they see of gRPC's context.

    Attributes:
        path: of its route, as it is counted.
        method: GET, POST, …
        headers: by name in lower case; of several of one name the last.
        params: what the path's places hold.
        deadline: on the monotonic clock, from :meth:`begin` on.
        ended: with which status it has failed, if it has.
        answered: headers of the answer.
        form: of its errors, where the body says more of it than the path.
    """

    def __init__(self, scope: Mapping[str, Any], path: str) -> None:
        self.path = path
        self.method: str = scope["method"]
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.params: Mapping[str, Any] = scope.get("path_params", {})
        self.ended: grpc.StatusCode | None = None
        self.answered: list[tuple[str, str]] = []
        self.form: Any = None
        self._query: bytes = scope["query_string"]
        self._client: tuple[str, int] | None = scope.get("client")
        self._arrived = time.monotonic()
        self.deadline = math.inf

    def begin(self) -> None:
        """Read how long the caller waits.

        Raises:
            InvalidInput: a header says it in no form that is known.
        """
        seconds = [
            read
            for name in _MILLISECONDS
            if (read := _milliseconds(name, self.headers)) is not None
        ]
        if GRPC_TIMEOUT in self.headers:
            seconds.append(_timeout(self.headers[GRPC_TIMEOUT]))
        self.deadline = self._arrived + min(seconds, default=math.inf)

    def query(self, name: str) -> str:
        """A parameter of the query; empty without one."""
        if not self._query:
            return ""
        given = parse_qs(self._query.decode("latin-1"), max_num_fields=64).get(name)
        return given[-1] if given else ""

    def model(self, named: str | None = None) -> str:
        """The model that is meant: by the body, the path, the header or the query; or none."""
        return (
            named or self.params.get("model") or self.headers.get(MODEL_KEY) or self.query("model")
        ) or ""

    def caller(self, answer_bytes: float) -> CallContext:
        """How long the caller waits, and for how large an answer."""
        remaining = self.time_remaining()
        return CallContext.within(
            math.inf if remaining is None else remaining,
            answer_bytes=answer_bytes,
            task=asyncio.current_task(),
        )

    # What follows is as gRPC's context has it.

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if math.isinf(self.deadline) else self.deadline - time.monotonic()

    def invocation_metadata(self) -> Iterable[tuple[str, str]]:
        """The headers."""
        model = self.query("model")
        return [*self.headers.items(), *([(MODEL_KEY, model)] if model else [])]

    def peer(self) -> str:
        """Who calls."""
        if self._client is None:
            return "unix:"
        host, port = self._client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def code(self) -> grpc.StatusCode | None:
        """The status with which it has failed, if it has."""
        return self.ended

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Headers of the answer."""
        self.answered += metadata

    def trailing_metadata(self) -> Iterable[tuple[str, str]]:
        """Headers of the answer, so far."""
        return tuple(self.answered)

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Headers of the answer."""
        self.answered += metadata

    async def abort(self, code: Any, details: str = "", metadata: Any = ()) -> NoReturn:
        """End the call.

        Raises:
            Aborted: always.
        """
        known = dict(metadata)
        status = status_pb2.Status(code=code.value[0], message=details)
        if _DETAILS in known:
            status = status_pb2.Status.FromString(known[_DETAILS])
        raise Aborted(status, in_vain=(PUSHBACK, NEVER) in tuple(metadata))


def _milliseconds(name: str, headers: Mapping[str, str]) -> float | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS):
        raise InvalidInput(
            f"header {name} is {value[:20]!r}: send whole milliseconds, as in 1500",
            field=f"header {name}",
        )
    return int(value) / 1000


def _timeout(value: str) -> float:
    """GRPC's own header: a number, and a unit.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    """
    number, unit = value[:-1], value[-1:]
    plain = number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS
    if unit not in _UNITS or not plain:
        raise InvalidInput(
            f"header {GRPC_TIMEOUT} is {value[:20]!r}: send a number and a unit of "
            f"{', '.join(_UNITS)}, as in 1500m",
            field=f"header {GRPC_TIMEOUT}",
        )
    return int(number) * _UNITS[unit]
