"""Settings that a program gives: checked as those of `bertd serve`, and read from nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from bertd_server.config.settings import Settings
from bertd_server.inside.options import OpenOptions
from bertd_server.models.layout import ModelSettings

_NAMES: frozenset[str] = OpenOptions.__optional_keys__


class SettingsError(ValueError):
    """A setting is unknown or cannot have its value; the message says which it could have."""


class _ArgumentSettings(Settings):
    """Settings without an environment: the host's variables are for the host."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone."""
        return (init_settings,)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings of what runs inside somebody else's process.

    Args:
        values: by name; what is missing has its default.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
    """
    for name in values:
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, 1)
            known = ", ".join(near or sorted(_NAMES))
            raise SettingsError(f"there is no setting {name!r}: use {known}")
    hosts = {"max_request_seconds": 0.0, "max_request_tokens": 0, "loop_run_seconds": 0.0}
    with _explained():
        return _ArgumentSettings(**{**hosts, **values})


def model_settings(own: Mapping[str, Any]) -> ModelSettings:
    """What one model has of its own.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
    """
    with _explained():
        return ModelSettings(**own)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        complaints = (f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise SettingsError("; ".join(complaints)) from error
