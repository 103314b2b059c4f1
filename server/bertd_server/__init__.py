"""Bundle in, answers out: the engine, the scheduler and the gRPC server. Never imports torch.

What a program needs that runs models itself is here by name, and imported when it is first asked
for (:mod:`bertd_server.inside`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bertd import telemetry

if TYPE_CHECKING:
    from bertd_server.inside.hosting import HostedServices, interceptor
    from bertd_server.inside.models import OpenModel, OpenModels, open_model, open_models
    from bertd_server.inside.threaded import (
        SyncModel,
        SyncModels,
        open_model_sync,
        open_models_sync,
    )

__all__ = [
    "HostedServices",
    "OpenModel",
    "OpenModels",
    "SyncModel",
    "SyncModels",
    "interceptor",
    "open_model",
    "open_model_sync",
    "open_models",
    "open_models_sync",
]

telemetry.refuse()  # before any module here imports ONNX Runtime

_HOMES = {"HostedServices": "hosting", "interceptor": "hosting"}


def __getattr__(name: str) -> object:
    """A name of the public interface, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"bertd_server.inside.{_HOMES[name]}" if name in _HOMES else "bertd_server.inside"
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """What there is."""
    return sorted([*globals(), *__all__])
