"""A page for people at `/`: what is served, a try of each task, what runs at this moment.

::

    GET /               the page, for who asks for HTML
    GET /console/NAME   what the page is made of; the same for everybody, and public
    GET /console/state  numbers of this moment, for who has a key where keys are needed
    POST /v1/tasks/…    the page's tries: calls like all others

Texts are in no part of it: of batches, lengths alone are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import bertd

from bertd_server.errors import InvalidInput
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import NO_METHOD, NO_ROUTE, openai_form, tei_form
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, json_reply
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.scheduling.statistics import Histogram

STATE = "/console/state"
_PAGE = "index.html"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = [
    ("cache-control", "no-cache"),  # kept by browsers, and asked about each time
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
]


class ConsoleCalls:
    """Answers what the page is made of, and what it asks of the server."""

    def __init__(self, models: Catalogue, grpc_address: Callable[[], str], *, tls: bool) -> None:
        """Serve the files of the package.

        Args:
            models: looked up anew each time.
            grpc_address: of the server, which the page's examples name.
            tls: whether it wants TLS.
        """
        self._models = models
        self._grpc_address = grpc_address
        self._tls = tls
        self._files = _read()

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        yield Route("GET", "/", self._page, tei_form, "a page for people", public=True)
        # Before the files: the first route that fits answers.
        yield Route("GET", STATE, self._state, openai_form, "numbers for the page", scope=None)
        yield Route(
            "GET", "/console/{name}", self._file, openai_form, "a part of the page", public=True
        )

    async def _page(self, call: HttpCall, _body: bytes) -> HttpReply:
        """The page where HTML is wanted; to all else `/` is Hugging Face's, which is POST."""
        call.answered.append(("vary", "accept"))
        if "text/html" not in call.headers.get("accept", ""):
            call.answered.append(("allow", "POST"))
            raise InvalidInput(f"{call.method} is not answered here: use POST", reason=NO_METHOD)
        return self._kept(call, _PAGE)

    async def _file(self, call: HttpCall, _body: bytes) -> HttpReply:
        name = call.params["name"]
        if name not in self._files:
            raise InvalidInput(
                f"/console/{name[:50]} is no part of the page: GET /", reason=NO_ROUTE
            )
        return self._kept(call, name)

    def _kept(self, call: HttpCall, name: str) -> HttpReply:
        """A file, or that it has not changed."""
        body, tag = self._files[name]
        headers = [("etag", tag), *_HEADERS]
        known = call.headers.get("if-none-match", "")
        kind = _TYPES[name.rpartition(".")[2]]
        if tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
            return HttpReply(b"", 304, headers, kind)
        return HttpReply(body, 200, headers, kind)

    async def _state(self, _call: HttpCall, _body: bytes) -> HttpReply:
        """Plain numbers; durations are seconds, null where there is no prediction."""
        reply = json_reply(
            {
                "version": bertd.__version__,
                "grpc": {"address": self._grpc_address(), "tls": self._tls},
                "models": [_seen(model) for model in self._models.models()],
            }
        )
        reply.headers.append(("cache-control", "no-store"))
        return reply


def _read() -> dict[str, tuple[bytes, str]]:
    """Each file of the page, with its tag."""
    found = {}
    for file in resources.files(__name__).joinpath("page").iterdir():
        body = file.read_bytes()
        found[file.name] = body, f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return found


def _seen(model: Model) -> dict[str, Any]:
    statistics, gauges = model.statistics, model.gauges()
    wait = gauges.predicted_wait
    return {
        "name": model.name,
        "version": model.version,
        "calls": statistics.total.count,
        "texts": statistics.answered,
        "expired": statistics.expired,
        "failed": statistics.failed,
        "refused": dict(statistics.refused),
        "in_flight": statistics.in_flight.calls,
        "waiting": gauges.waiting,
        "waiting_tokens": gauges.waiting_tokens,
        "predicted_wait": None if math.isinf(wait) else wait,
        "lanes": model.limits.lanes,
        "lanes_alive": gauges.lanes_alive,
        "running": gauges.batches_running,
        "latency": _counts(statistics.total),
        "batches": [
            [one.number, one.lengths, one.seconds, one.predicted, one.kind]
            for one in statistics.look()
        ],
    }


def _counts(histogram: Histogram) -> list[tuple[float, int]]:
    """Upper bounds of those buckets that have values, in seconds, and how many each has."""
    found, before = [], 0
    for bound, below in histogram.buckets():
        if below > before:
            found.append((bound, below - before))
        before = below
    return found
