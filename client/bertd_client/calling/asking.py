"""What is asked: many inputs, which may be split into several calls, or one thing in one call.

::

    arguments ──bertd_client.tasks──> BulkRequest ────splitting.py──> calls ──> outcomes in order
                                 └──> SingleRequest ────────────────> a call ──> an answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from bertd_client.calling.requests import Prepared, set_fields
from bertd_client.calling.responses import ReadResponse
from bertd_client.errors import BertdError

R = TypeVar("R")

_OWN = frozenset({"timeout", "progress", "special_tokens"})  # no fields of requests


@dataclass(frozen=True, slots=True)
class BulkRequest(Generic[R]):
    """Inputs to be asked about, in one call or in several."""

    field: str
    """Of the request in which inputs are."""
    inputs: Sequence[Prepared | BertdError]
    """One by one; what no message can carry as its error."""
    template: Message
    """The request without inputs."""
    read: ReadResponse[R]
    """From a response to outcomes."""
    timeout: float | None
    """Seconds for all of it."""
    progress: bool
    """Whether to show how far it is."""
    weight: int = 1
    """What an input counts for in the server's limit of inputs."""
    at_once: int | None = None
    """Inputs of a call, at most, where answers are large."""
    arrange: Callable[[list[R | BertdError]], list[R | BertdError]] | None = None
    """The order of all outcomes; None for that of the inputs."""

    @property
    def rpc(self) -> str:
        """The RPC's name."""
        return _rpc(self.template)

    def message(self, places: Sequence[int]) -> Message:
        """The request about some of the inputs, none of them an error."""
        request = type(self.template)()
        request.CopyFrom(self.template)
        chosen = [self.inputs[place] for place in places]
        getattr(request, self.field).extend(one[0] for one in chosen if isinstance(one, tuple))
        return request


@dataclass(frozen=True, slots=True)
class SingleRequest(Generic[R]):
    """One call, whose response is read as a whole."""

    message: Message
    read: Callable[[Any], R]
    timeout: float | None
    """In seconds."""

    @property
    def rpc(self) -> str:
        """The RPC's name."""
        return _rpc(self.message)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[R]):
    """How an RPC takes many inputs, and gives an outcome for each."""

    method: str
    """Of the clients, for errors."""
    request: type[Message]
    field: str
    """Of the request in which inputs are."""
    options: type
    """The TypedDict of the method's options."""
    prepare: Callable[[Any, str], list[Prepared | BertdError]]
    read: ReadResponse[R]
    at_once: int | None = None
    """Inputs of a call, at most, where answers are large."""

    def bulk(
        self,
        inputs: Iterable[Any],
        options: Mapping[str, Any],
        *,
        weight: int = 1,
        arrange: Callable[[list[R | BertdError]], list[R | BertdError]] | None = None,
        **more: Any,
    ) -> BulkRequest[R]:
        """Ask about some inputs.

        Args:
            inputs: As the method takes them.
            options: Those of the method, by name.
            weight: See :class:`BulkRequest`.
            arrange: See :class:`BulkRequest`.
            more: Further fields of the request.

        Raises:
            TypeError: An input or option is of another type, or there is no such option.
            ValueError: An option has a value that there is not.
            InvalidArgument: A further field cannot be written as UTF-8.
        """
        known: frozenset[str] = self.options.__optional_keys__  # type: ignore[attr-defined]
        for name in options:
            if name not in known:
                words = ", ".join(sorted(known))
                raise TypeError(f"{self.method}() has no option {name!r}: it has {words}")
        fields = {name: value for name, value in options.items() if name not in _OWN}
        template = self.request()
        set_fields(template, {**fields, **more})
        return BulkRequest(
            field=self.field,
            inputs=self.prepare(inputs, self.field),
            template=template,
            read=self.read,
            timeout=options.get("timeout"),
            progress=bool(options.get("progress")),
            weight=weight,
            at_once=self.at_once,
            arrange=arrange,
        )


def _rpc(message: Message) -> str:
    """The RPC that a message is the request of; they are named alike, which a test checks."""
    return str(message.DESCRIPTOR.name).removesuffix("Request")
