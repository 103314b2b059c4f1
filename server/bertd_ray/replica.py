"""A replica of a deployment: one bundle, its lanes, and the services that ask it.

::

    Ray's proxy ──NAME(bytes, context)──> ReplicaMethod ──> LocalServer ──> services ──> model
    other deployments ──embed(texts, …)──────────────────────────────────────> model
    Ray's controller ──check_health, record_autoscaling_stats
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bertd_server.config.settings import Settings
from bertd_server.errors import NoLane
from bertd_server.inside.hosting import HostedServices
from bertd_server.inside.methods import ModelMethods
from bertd_server.inside.models import OpenModels
from bertd_server.models.model import Model
from bertd_server.process import runtime
from bertd_server.rpc.interceptors.authentication import KeyInterceptor
from bertd_server.rpc.load_reports import Load
from bertd_server.rpc.services import Services
from bertd_server.security.keys import KeyRing

from bertd_ray.calls import AnswerBytes, Ended, LocalServer, RayCall, RayContext, tell
from bertd_ray.scaling import UTILISATION
from bertd_ray.wire import END, METHODS

R = TypeVar("R")

# What `bertd serve` limits and a library does not; a replica is a server.
_SERVED = ("loop_run_seconds", "max_request_seconds", "max_request_tokens")


class Replica(ModelMethods):
    """The class of the deployment. Its RPCs are attributes by their bare names, as Ray calls them.

    Other deployments of the cluster call the methods of :class:`ModelMethods` through a handle.
    Nothing here imports Ray.
    """

    async def __init__(  # type: ignore[misc]  # noqa: PLR0913 - Ray awaits it; by keyword
        self,
        bundle: str,
        *,
        name: str = "",
        api_keys: str | None = None,
        max_texts_per_call: int,
        max_message_bytes: int,
        settings: Mapping[str, Any],
    ) -> None:
        """Load the bundle.

        Args:
            bundle: the folder, on the node where this runs.
            name: of the model; empty for the bundle's own.
            api_keys: file of the keys that calls through the proxy need; None for none.
            max_texts_per_call: in one call.
            max_message_bytes: of one message.
            settings: how the model is run, as :func:`bertd_server.open_models` takes them.

        Raises:
            bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
            CannotServeError: the provider, the memory or the key file is not there.
        """
        runtime.settle()
        self._models = OpenModels(**{**served(), **settings})
        self._services = HostedServices(
            self._models,
            max_texts_per_call=max_texts_per_call,
            max_message_bytes=max_message_bytes,
        )
        keys = [KeyInterceptor(KeyRing(Path(api_keys)))] if api_keys else []
        interceptors = [*keys, Services.interceptor(max_texts_per_call)]
        server = LocalServer(interceptors, max_message_bytes)
        self._services.add_to(server)
        self._load = Load(
            self._models.catalogue.models, lambda: self._models.settings.max_queue_seconds
        )
        self._closed = False
        for method in METHODS.values():
            setattr(self, method.name, ReplicaMethod(method.name, server))
        self._model = await self._models.load(bundle, name=name)

    async def ask(self, question: Callable[[Model], Awaitable[R]]) -> R:
        """Answer a question of another deployment.

        Raises:
            RequestError: the call as a whole cannot be answered.
        """
        return await self._model.ask(question)

    def check_health(self) -> None:
        """Tell Ray whether calls can be answered; it replaces a replica of which they cannot.

        Raises:
            NoLane: nothing can run a batch.
        """
        if not self._services.serving:
            raise NoLane("no lane is alive")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray how loaded this replica is."""
        return {UTILISATION: self._load.used(time.monotonic())}

    def __del__(self) -> Awaitable[None] | None:
        """End, as Ray asks it once no call is left; it awaits what this gives."""
        if getattr(self, "_closed", True):
            return None
        self._closed = True
        return self._close()

    async def _close(self) -> None:
        self._services.drain()
        await self._models.close()


class ReplicaMethod:
    """A method by its bare name, which may be that of several services.

    Ray runs functions and bound methods on threads where they are no coroutines; an object with
    `__call__` it calls as it is, so that this may give a coroutine or a stream, as the path says.
    """

    def __init__(self, name: str, server: LocalServer) -> None:
        self.__name__ = name
        self._server = server

    def __call__(self, request: Any, grpc_context: RayContext) -> Any:
        """Answer a call; a coroutine or a generator of :class:`AnswerBytes`."""
        try:
            call = RayCall(grpc_context)
        except Ended as ended:
            return _refused(grpc_context, ended)
        if METHODS[call.path].server_streaming:
            return self._stream(request, call)
        return self._answer(request, call)

    async def _answer(self, request: Any, call: RayCall) -> AnswerBytes:
        try:
            return AnswerBytes(await self._server.call(request, call))
        except Ended as ended:
            call.end(ended)
            return AnswerBytes(b"")  # where a call is raised out of, Ray loses its trailers

    async def _stream(self, request: Any, call: RayCall) -> AsyncIterator[AnswerBytes]:
        try:
            async for response in self._server.stream(request, call):
                yield AnswerBytes(response)
        except Ended as ended:
            call.end(ended)
            yield AnswerBytes(END)


async def _refused(context: RayContext, ended: Ended) -> AnswerBytes:
    tell(context, ended)
    return AnswerBytes(b"")


def served() -> dict[str, Any]:
    """Settings with the values of `bertd serve` where those of a library are others."""
    return {name: Settings.model_fields[name].default for name in _SERVED}
