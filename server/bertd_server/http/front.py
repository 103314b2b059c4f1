"""A call's way over HTTP, whatever its protocol.

::

    route ──> counted, logged, traced ──> key ──> deadline ──> body ──> protocol ──> reply
                  └── an error at any of them: its status, in the protocol's form
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from bertd_server.errors import Draining, InvalidInput, RequestError, Unauthenticated
from bertd_server.http import bodies
from bertd_server.http.call import Aborted, HttpCall
from bertd_server.http.failures import (
    NO_METHOD,
    NO_ROUTE,
    Failure,
    Form,
    Refused,
    failure_of,
    form_of,
    internal,
    reply_of,
)
from bertd_server.http.replies import HttpReply
from bertd_server.rpc.limits import CallLimits
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.security.allowance import ALLOWANCE
from bertd_server.security.keys import KeyRing
from bertd_server.security.management import caller_id
from bertd_server.security.scopes import Scope
from bertd_server.system.call_metrics import CURRENT, REQUEST_ID, given_id, made_id
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_CHUNK_BYTES = 262_144  # that are sent before the client must have read some
_BEARER = "bearer "
Handler = Callable[[HttpCall, bytes], Awaitable[HttpReply]]
Monitor = Callable[[str, HttpCall], AbstractContextManager[None]]
_Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path.

    Attributes:
        method: GET or POST.
        path: with places such as `{model}`, and `{model:path}` where it may have slashes.
        answer: from the call and its body.
        form: of errors.
        meaning: in a few words.
        scope: that a key needs; None where any will do.
        public: whether no key is needed.
        counted: whether what the body says is counted here; else whoever answers does.
        body: what is sent; None for nothing, or for what no schema says.
        schema: JSON schema of the body, where that is known otherwise.
        gives: JSON schema of the answer.
        binary: whether the answer may be bytes too.
    """

    method: str
    path: str
    answer: Handler
    form: Form
    meaning: str
    scope: Scope | None = "infer"
    public: bool = False
    counted: bool = True
    body: type[BaseModel] | None = None
    schema: Mapping[str, Any] | None = None
    gives: Mapping[str, Any] | None = None
    binary: bool = False


class Front:
    """An ASGI application. Use it on one event loop.

    Attributes:
        closing: whether calls are cut short because the server goes.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        routes: Sequence[Route],
        limits: CallLimits,
        *,
        keys: KeyRing | None,
        monitor: Monitor | None,
        memory: MemoryBudget,
        body_seconds: float,
    ) -> None:
        """Serve routes.

        Args:
            routes: the first that fits answers.
            limits: of calls.
            keys: that calls need, if they do.
            monitor: what goes around each call, if somebody counts them.
            memory: of requests in flight.
            body_seconds: for a body to begin.
        """
        self.closing = False
        self._limits = limits
        self._keys = keys
        self._monitor = monitor
        self._memory = memory
        self._body_seconds = body_seconds
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        self._router = Router(
            [StarletteRoute(path, _Endpoint(self, ways)) for path, ways in by_path.items()],
            default=self._unknown,
            redirect_slashes=False,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._router(scope, receive, send)

    async def answer(
        self, call: HttpCall, route: Route, receive: bodies.Receive
    ) -> tuple[HttpReply, bool]:
        """The reply to a call, and whether its body has been read."""
        whole = False
        with self._monitor(call.path, call) if self._monitor else nullcontext():
            try:
                with self._admitted(call, route):
                    call.begin()
                    room = await bodies.room(
                        self._memory, call.headers, self._limits.max_message_bytes, call.deadline
                    )
                    with room or nullcontext():
                        body = await bodies.read(
                            receive,
                            call.headers,
                            most=self._limits.max_message_bytes,
                            seconds=self._body_seconds,
                        )
                        whole = True
                        body = await bodies.inflated(
                            body, call.headers, self._limits.max_message_bytes
                        )
                    if route.counted:
                        await bodies.check_values(body)
                    reply = await route.answer(call, body)
            except (RequestError, Refused, Aborted) as error:
                reply = self._refused(call, failure_of(error), call.form or route.form)
            except (asyncio.CancelledError, bodies.ClientLeft):
                if not self.closing:
                    raise
                gone = Draining("the server stopped before it had an answer: send it again")
                reply = self._refused(call, failure_of(gone), call.form or route.form)
            except Exception:
                log.exception("a call failed", path=call.path)
                reply = self._refused(call, internal(), call.form or route.form)
        if not whole and reply.status != HTTPStatus.REQUEST_TIMEOUT:
            whole = await self.discard(call, receive)
        return reply, whole

    async def discard(self, call: HttpCall, receive: bodies.Receive) -> bool:
        """Read what is left of a call that is refused; whether that is all of it."""
        return await bodies.discard(
            receive,
            call.headers,
            most=self._limits.max_message_bytes,
            seconds=self._body_seconds,
        )

    @staticmethod
    def _refused(call: HttpCall, failure: Failure, form: Form) -> HttpReply:
        call.ended = failure.code
        record = CURRENT.get()
        if record is not None:
            record.reason = failure.reason
        return reply_of(failure, form)

    @contextmanager
    def _admitted(self, call: HttpCall, route: Route) -> Iterator[None]:
        """Let the call through with its caller known.

        Raises:
            RequestError: it has no key that counts for this, or the key may not use more now.
        """
        if self._keys is None or route.public:
            yield
            return
        caller = self._keys.find(_authorization(call))
        caller.require(route.scope)
        caller.allowance.take(caller.entry.id)
        caller_id.set(caller.entry.id)
        if caller.allowance.unlimited:
            yield
            return
        ALLOWANCE.set(caller.allowance)
        with caller.allowance.at_work(caller.entry.id):
            yield

    async def _unknown(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a path that there is not; strangers with keys to find learn nothing of it."""
        call = HttpCall(scope, "")
        try:
            if self._keys is not None:
                self._keys.find(_authorization(call))
            raise InvalidInput(
                f"{call.method} {scope['path'][:100]!r} is nothing that is served: GET "
                "/openapi.json lists what is",
                reason=NO_ROUTE,
            )
        except RequestError as error:
            reply = reply_of(failure_of(error), form_of(scope["path"]))
        await respond(call, reply, send, whole=await self.discard(call, receive))


class _Endpoint:
    """What Starlette calls for a path."""

    def __init__(self, front: Front, ways: Mapping[str, Route]) -> None:
        self._front = front
        self._ways = dict(ways)
        if "GET" in ways:
            self._ways["HEAD"] = ways["GET"]
        self._allowed = ", ".join(sorted(self._ways))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route = self._ways.get(scope["method"])
        first = next(iter(self._ways.values()))
        call = HttpCall(scope, _counted((route or first).path))
        if route is None:
            error = InvalidInput(
                f"{call.method[:20]} is not answered here: use {self._allowed}", reason=NO_METHOD
            )
            reply = reply_of(failure_of(error), first.form)
            reply.headers.append(("allow", self._allowed))
            whole = await self._front.discard(call, receive)
            await respond(call, reply, send, whole=whole)
            return
        try:
            reply, whole = await self._front.answer(call, route, receive)
            await respond(call, reply, send, whole=whole)
        except (asyncio.CancelledError, bodies.ClientLeft):
            return  # nobody is there to be told


def _counted(path: str) -> str:
    return path.replace(":path}", "}")


def _authorization(call: HttpCall) -> str | None:
    """The key of a call as gRPC has it: with or without `Bearer`, or in OpenAI's other header."""
    given: str | None = call.headers.get("authorization") or call.headers.get("api-key")
    if not given:
        return None
    if given.lower().startswith(_BEARER):
        return given
    if given.lower().startswith("basic "):
        raise Unauthenticated(
            "authorization is Basic: send Bearer and an API key", reason="missing_key"
        )
    return f"Bearer {given}"


def _length(reply: HttpReply) -> list[tuple[str, str]]:
    """Of a body; that of NOT_MODIFIED would be the length of what the client has."""
    if reply.status == HTTPStatus.NOT_MODIFIED:
        return []
    return [("content-length", str(len(reply.body)))]


async def respond(call: HttpCall, reply: HttpReply, send: _Send, *, whole: bool) -> None:
    """Send a reply, a part at a time, as fast as it is read.

    Args:
        call: that it answers.
        reply: what to send.
        send: of ASGI.
        whole: whether the request has been read; else its connection ends with the answer.
    """
    record = CURRENT.get()
    known = record.id if record else given_id(call.invocation_metadata()) or made_id()
    headers = [
        ("content-type", reply.content_type),
        *_length(reply),
        *reply.headers,
        *((name, value) for name, value in call.answered if name != REQUEST_ID),
        (REQUEST_ID, known),
        *(() if whole else (("connection", "close"),)),
    ]
    start = {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    await send(start)
    for begin in range(0, len(reply.body) or 1, _CHUNK_BYTES):
        end = begin + _CHUNK_BYTES
        part = reply.body[begin:end] if len(reply.body) > _CHUNK_BYTES else reply.body
        more = end < len(reply.body)
        await send({"type": "http.response.body", "body": part, "more_body": more})
