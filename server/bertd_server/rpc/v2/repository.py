"""Triton's repository extension: what is there, and what of it is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bertd.oip import grpc_service_pb2 as pb
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput, RequestError, Unsupported
from bertd_server.models.repository import ModelState, Repository
from bertd_server.rpc.status import abort
from bertd_server.rpc.v2.refused import RefusedCalls
from bertd_server.security.management import Management

_READY: ModelState = "READY"
_NO_CALLS = "the server takes no calls at this moment"


class RepositoryCalls(RefusedCalls):
    """Lists, loads and unloads models.

    Attributes:
        management: whether callers may change what is served.
    """

    def __init__(
        self, repository: Repository, management: Management, serving: Callable[[], bool]
    ) -> None:
        self.management = management
        self._repository = repository
        self._serving = serving

    async def RepositoryIndex(  # noqa: N802 - the RPC's name
        self,
        request: pb.RepositoryIndexRequest,
        context: Context[Any, Any],
    ) -> pb.RepositoryIndexResponse:
        """List the models of the repository, served or not."""
        if request.repository_name:
            await abort(context, _no_other("repository_name"))
        response = pb.RepositoryIndexResponse()
        serving = self._serving()
        for entry in self._repository.index():
            state: ModelState = entry.state
            reason = entry.reason
            if state == _READY and not serving:
                state, reason = "UNAVAILABLE", _NO_CALLS
            if state == _READY or not request.ready:
                response.models.add(
                    name=entry.name, version=entry.version, state=state, reason=reason
                )
        return response

    async def RepositoryModelLoad(  # noqa: N802 - the RPC's name
        self, request: pb.RepositoryModelLoadRequest, context: Context[Any, Any]
    ) -> pb.RepositoryModelLoadResponse:
        """Serve a model as it is in the repository now."""
        try:
            self.management.check("RepositoryModelLoad", request.model_name)
            if request.repository_name:
                raise _no_other("repository_name")
            for name in sorted(request.parameters):
                raise Unsupported(
                    f"parameter {name!r}: the model is served as it is in the repository: put "
                    "settings into its model.toml, or another bundle into a new version"
                )
            await self._repository.load(request.model_name)
        except RequestError as error:
            await abort(context, error)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802 - the RPC's name
        self, request: pb.RepositoryModelUnloadRequest, context: Context[Any, Any]
    ) -> pb.RepositoryModelUnloadResponse:
        """Serve no version of a model any more."""
        try:
            self.management.check("RepositoryModelUnload", request.model_name)
            if request.repository_name:
                raise _no_other("repository_name")
            for name in sorted(set(request.parameters) - {"unload_dependents"}):
                raise Unsupported(f"parameter {name!r}: leave it out")  # no model has dependents
            await self._repository.unload(request.model_name)
        except RequestError as error:
            await abort(context, error)
        return pb.RepositoryModelUnloadResponse()


def _no_other(field: str) -> InvalidInput:
    return InvalidInput(f"{field}: there is one repository, leave it empty", field=field)
