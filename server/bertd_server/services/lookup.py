"""Which model a request means; the same for every protocol."""

from __future__ import annotations

from collections.abc import Mapping

from bertd_server.errors import InvalidInput, UnknownModel
from bertd_server.model import Model

Models = Mapping[str, Model]


def find_model(models: Models, name: str, field: str = "model") -> Model:
    """The model of that name; an empty name is the only one.

    Raises:
        UnknownModel: it is not served.
        InvalidInput: no name was given and there are several.
    """
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name in models:
        return models[name]
    served = ", ".join(sorted(models))
    if not name:
        raise InvalidInput(f"{field} is empty: name one of {served}", field=field, reason="empty")
    raise UnknownModel(f"model {name!r} is not served; served: {served}")
