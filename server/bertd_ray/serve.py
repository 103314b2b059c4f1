"""bertd as an application of Ray Serve: the services of `bertd serve` behind Ray's gRPC proxy.

::

    Serve's config ──args──> app ─────┐
    Python ──────────────> application ──> Deployment of Replica, with its policy of scaling
    Serve's gRPC options ──> add_services, in every proxy

docs/ray_serve.md shows how to use it, and what is different from `bertd serve`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ray
from bertd.bundle import read_manifest
from bertd_server.config.settings import Settings
from bertd_server.inside.options import OpenOptions
from bertd_server.inside.settings import SettingsError, settings_of
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, gRPCOptions
from starlette.responses import PlainTextResponse

from bertd_ray import scaling
from bertd_ray.proxy import add_services
from bertd_ray.replica import Replica
from bertd_ray.wire import SERVICERS

__all__ = ["add_services", "app", "application", "grpc_options"]


class Deployed(Replica):
    """A replica of a deployment, with the CPUs and the memory that Ray has reserved for it."""

    async def __init__(self, bundle: str, *, settings: Mapping[str, Any], **others: Any) -> None:  # type: ignore[misc]  # Ray awaits it
        """Load the bundle, as :class:`Replica` does."""
        resources = ray.get_runtime_context().get_assigned_resources()
        cores = max(1, int(resources.get("CPU", 1)))
        given: dict[str, Any] = {"lanes": cores, "threads": cores}
        if memory := int(resources.get("memory", 0)):
            given["memory_limit"] = memory
        await super().__init__(bundle, settings={**given, **settings}, **others)

    async def __call__(self, _request: object) -> PlainTextResponse:
        """Tell those who come by HTTP, on which Serve puts every application, where to ask."""
        return PlainTextResponse(
            "bertd answers over gRPC here: ask Serve's gRPC port, 9000 unless another was chosen\n",
            404,
        )


# Calls that a replica has at once. Those beyond wait in the proxies, of which the scheduler and
# its promises know nothing; 5 is Ray's own number.
MAX_ONGOING = 1_000


def grpc_options(port: int = 9000, request_timeout_s: float | None = None) -> gRPCOptions:
    """Options with which to start Serve: `serve.start(grpc_options=grpc_options())`.

    Args:
        port: on which every proxy listens, on all addresses of its node.
        request_timeout_s: seconds after which Ray ends a call; None for no limit of its own.
    """
    return gRPCOptions(
        port=port,
        grpc_servicer_functions=[SERVICERS],
        request_timeout_s=request_timeout_s,
        enable_reflection=False,  # ours knows all services, Ray's does not find those of V2
    )


def app(args: Mapping[str, Any]) -> Application:
    """Build an application of the `args` of Serve's config: `import_path: bertd_ray.serve:app`.

    Raises:
        SettingsError: an argument is unknown, or cannot have its value.
    """
    if "bundle" not in args:
        raise SettingsError("args have no bundle: give the folder's absolute path on every node")
    return application(**args)


def application(  # noqa: PLR0913 - by keyword
    bundle: str | Path,
    *,
    name: str = "",
    num_cpus: float = 1,
    memory: float | None = None,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    target_utilisation: float = scaling.TARGET,
    api_keys: str | Path | None = None,
    max_texts_per_call: int | None = None,
    max_message_bytes: int | None = None,
    **settings: Any,
) -> Application:
    """Build an application, for `serve.run`.

    Args:
        bundle: absolute path of the folder, on every node that may run a replica.
        name: of the model; empty for the bundle's own.
        num_cpus: of a replica, which has as many lanes, one at least.
        memory: bytes of a replica, which Ray reserves and the replica keeps to; None for neither.
        min_replicas: at least.
        max_replicas: at most, as the load wants them; None for `min_replicas` always.
        target_utilisation: of each replica, where their number follows the load.
        api_keys: absolute path of the file of keys, on every node; None for no keys.
        max_texts_per_call: in one call.
        max_message_bytes: of one message.
        settings: how the model is run, as :func:`bertd_server.open_models` takes them.

    Raises:
        SettingsError: a setting is unknown, is Ray's business, or cannot have its value.
    """
    _check_settings(settings)
    served = Settings.model_fields
    deployment = serve.deployment(
        Deployed,
        name="bertd",
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": num_cpus} | ({"memory": memory} if memory else {}),
        **_replicas(min_replicas, max_replicas, target_utilisation),
    )
    return deployment.bind(
        _absolute("bundle", bundle),
        name=name,
        api_keys=None if api_keys is None else _absolute("api_keys", api_keys),
        max_texts_per_call=max_texts_per_call or served["max_texts_per_call"].default,
        max_message_bytes=max_message_bytes or served["max_message_bytes"].default,
        settings=settings,
    )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse, before anything is deployed, what no replica could have."""
    ours = [one for one in settings if one in Settings.model_fields]
    for one in ours:
        if one not in OpenOptions.__optional_keys__:
            raise SettingsError(
                f"{one} is a setting of `bertd serve` and none behind Ray Serve, which has "
                "addresses, connections and processes for itself: leave it out "
                "(docs/ray_serve.md says what takes its place)"
            )
    if "lanes" in settings or "threads" in settings:
        raise SettingsError(
            "lanes and threads follow from the CPUs that Ray reserves: give num_cpus"
        )
    known = inspect.signature(application).parameters
    for one in settings:
        if one not in OpenOptions.__optional_keys__ and (near := _nearest(one, known)):
            raise SettingsError(f"there is no argument {one!r}: use {near}")
    settings_of(settings)


def _nearest(name: str, known: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def _absolute(argument: str, path: str | Path) -> str:
    """A path that means the same in every process; a bundle that is here is looked at now."""
    path = Path(path)
    if not path.is_absolute():
        raise SettingsError(
            f"{argument} is {str(path)!r}: give an absolute path, replicas run in other folders"
        )
    if argument == "bundle" and path.is_dir():
        read_manifest(path)
    return str(path)


def _replicas(least: int, most: int | None, target: float) -> dict[str, Any]:
    """How many replicas: a number, or a policy."""
    if most is None:
        return {"num_replicas": least}
    scaling.Utilisation(target)  # refused now rather than by the controller
    policy = AutoscalingPolicy(
        policy_function="bertd_ray.scaling:Utilisation", policy_kwargs={"target": target}
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=least, max_replicas=most, policy=policy
        )
    }
