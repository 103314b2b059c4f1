"""The models that answer calls: by name, alias and version.

::

    find(name or alias, version) ──> Model, held by the call for as long as it uses it
    put(model) ──> in the place of the one before it, between two calls
    take(name, version) ──> nobody finds it any more; those who hold it go on

Everything belongs to the event loop. A call finds its model and holds it without a pause between
the two, so that no model is drained under a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bertd_server.errors import InvalidInput, RequestError, Starting, UnknownModel
from bertd_server.models.model import Model

LATEST = "latest"

_STARTING = (
    "the server starts, and answers once its models are loaded: try again, or wait until "
    "grpc.health.v1 says SERVING"
)


class Catalogue:
    """Models by name and version. Use it on one event loop."""

    def __init__(self, default: str = "") -> None:
        """Begin with none.

        Args:
            default: name of the model that a call without a name means; empty for the only one.
        """
        self._default = default
        self._starting = False
        self._changed: Callable[[], None] = lambda: None
        self._models: dict[str, dict[int, Model]] = {}
        self._aliases: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        """How many models there are, of any version."""
        return sum(map(len, self._models.values()))

    def when_changed(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each change, and now."""
        self._changed = changed
        changed()

    def starts(self, *, starting: bool = True) -> None:
        """Let no call find a model until all are there that a server starts with."""
        self._starting = starting

    def models(self) -> list[Model]:
        """All of them, by name, then by version."""
        return [model for name in sorted(self._models) for model in self.versions(name)]

    def versions(self, name: str) -> list[Model]:
        """Those of one name, by version; none if it is not served."""
        return [model for _, model in sorted(self._models.get(name, {}).items())]

    def newest(self) -> list[Model]:
        """Of each name the one that answers unless a version is asked for."""
        return [versions[max(versions)] for _, versions in sorted(self._models.items())]

    def aliases(self, name: str) -> dict[str, str]:
        """Aliases of a model's name, and the version that each means."""
        return {
            alias: version for alias, (known, version) in self._aliases.items() if known == name
        }

    def means(self, alias: str) -> str:
        """The model's name that an alias stands for; empty if it is none."""
        return self._aliases.get(alias, ("", ""))[0]

    def put(self, model: Model) -> Model | None:
        """Let a model answer from now on; returns the one of its name and version before it."""
        versions = self._models.setdefault(model.name, {})
        before = versions.get(int(model.version))
        versions[int(model.version)] = model
        self._changed()
        return before

    def take(self, name: str, version: str) -> Model | None:
        """Let a model answer no more calls; returns it, if it was there."""
        versions = self._models.get(name, {})
        taken = versions.pop(int(version), None)
        if not versions:
            self._models.pop(name, None)
        self._changed()
        return taken

    def name(self, name: str, aliases: Mapping[str, str]) -> None:
        """Give a model's name these aliases and no others.

        Args:
            name: of the model.
            aliases: to the version that each means, or `latest`.
        """
        kept = {alias: meant for alias, meant in self._aliases.items() if meant[0] != name}
        self._aliases = kept | {alias: (name, version) for alias, version in aliases.items()}

    def find(self, name: str, version: str = "", field: str = "model") -> Model:
        """The model that a call means: hold it, with `with`, before the next pause.

        Args:
            name: of a model, or an alias; empty for the default.
            version: that it must have; empty for the newest, or the alias's.
            field: what the name is called in the request.

        Raises:
            UnknownModel: there is none.
            InvalidInput: no name was given and there are several.
            Starting: the server does not answer yet.
        """
        if self._starting:
            raise Starting(_STARTING)
        if not name:
            name = self._default or (next(iter(self._models)) if len(self._models) == 1 else "")
        if not name:
            raise self._unnamed(field)
        meant, fixed = name, LATEST
        if name not in self._models and name in self._aliases:
            meant, fixed = self._aliases[name]
        versions = self._models.get(meant)
        if versions is None:
            served = ", ".join(sorted({*self._models, *self._aliases})) or "none at this moment"
            raise UnknownModel(f"model {name!r} is not served; served: {served}")
        wanted = version or ("" if fixed == LATEST else fixed)
        if not wanted:
            return versions[max(versions)]
        # Compared as text: a caller's may be no number, or one of any length.
        found = next((model for model in versions.values() if model.version == wanted), None)
        if found is None:
            served = ", ".join(map(str, sorted(versions)))
            raise UnknownModel(f"model {name!r} has no version {wanted!r}; served: {served}")
        return found

    def _unnamed(self, field: str) -> RequestError:
        """Why a call without a name means no model."""
        served = ", ".join(sorted(self._models))
        if not served:
            return UnknownModel("no model is served at this moment")
        return InvalidInput(f"{field} is empty: name one of {served}", field=field, reason="empty")
