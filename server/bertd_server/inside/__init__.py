"""bertd inside somebody else's process: models without a server, services on their server.

::

    open_model, open_models ───────────> OpenModel    asyncio
    open_model_sync, open_models_sync ─> SyncModel    threads
    hosting.HostedServices ────────────> a grpc.aio server of the host

Nothing here is global: no signal handler, no logging set-up, no event loop but that of the host or,
for threads, one in a thread of its own. docs/inside.md shows how to use it.
"""

from bertd_server.errors import (
    CannotServeError,
    DeadlineMissed,
    Draining,
    InvalidInput,
    Overloaded,
    RequestError,
    UnknownModel,
    WrongTask,
)
from bertd_server.inside.methods import Ranked
from bertd_server.inside.models import OpenModel, OpenModels, open_model, open_models
from bertd_server.inside.settings import SettingsError
from bertd_server.inside.threaded import (
    SyncModel,
    SyncModels,
    open_model_sync,
    open_models_sync,
)
from bertd_server.tasks.ask import Reply

__all__ = [
    "CannotServeError",
    "DeadlineMissed",
    "Draining",
    "InvalidInput",
    "OpenModel",
    "OpenModels",
    "Overloaded",
    "Ranked",
    "Reply",
    "RequestError",
    "SettingsError",
    "SyncModel",
    "SyncModels",
    "UnknownModel",
    "WrongTask",
    "open_model",
    "open_model_sync",
    "open_models",
    "open_models_sync",
]
