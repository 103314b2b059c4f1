"""The effective settings, and where each came from: flags > `BERTD_…` > TOML file > defaults.

::

    --flags ──┐
    BERTD_… ──┼──> names known? ──> one value for each ──> valid? ──> Configuration
    FILE ─────┘        │ ConfigurationError: the source, the limit, the remedy │

Values from all sources are checked by the model alone, so that a fault reads the same everywhere.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError, TomlConfigSettingsSource

from bertd_server.config.flags import flag, variable
from bertd_server.config.settings import GROUPS, Settings

DEFAULT = "default"

FILE_VARIABLE = "BERTD_CONFIG"
"""Names the file where no flag does."""

SUPERVISOR_VARIABLE = "BERTD_SUPERVISOR"
"""The socket that a supervised server has from its parent."""

_OTHERS = {FILE_VARIABLE, SUPERVISOR_VARIABLE, "BERTD_SERVER"}  # the last is the client's

# Kubernetes gives pods such variables for every service, one that is called bertd included.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES = re.compile(
    r"BERTD_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}


_QUOTED = 200  # characters of a value


class ConfigurationError(ValueError):
    """A setting is unknown or cannot have its value; the message names its source and a remedy."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings and, by name of a setting, where it came from: its flag, variable, file or default.

    Attributes:
        settings: the effective ones.
        sources: of each value.
    """

    settings: Settings
    sources: Mapping[str, str]

    def toml(self) -> str:
        """The effective settings as a file that gives them again; secrets stay hidden."""
        lines = []
        for name in type(self.settings).model_fields:
            if name in GROUPS:
                lines += ["", f"# {GROUPS[name]}"]
            value, source = getattr(self.settings, name), self.sources[name]
            if isinstance(value, SecretStr | SecretBytes):
                lines.append(f"# {name} is set and not shown  # {source}")
            elif value is None:
                lines.append(f"# {name} is not set  # {source}")
            else:
                lines.append(f"{name} = {_toml(value)}  # {source}")
        return "\n".join(lines).strip() + "\n"


def load(flags: Mapping[str, Any], file: Path | None = None) -> Configuration:
    """Put the settings together.

    Args:
        flags: values of the command line, by name of the setting.
        file: in TOML; None for none.

    Raises:
        ConfigurationError: the file cannot be read, a name is unknown or a value is wrong.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.model_fields, DEFAULT)
    for layer, where in (
        (_read(file) if file else {}, lambda _: str(file)),
        (_environment(), variable),
        (flags, flag),
    ):
        values.update(layer)
        sources.update({name: where(name) for name in layer})
    try:
        return Configuration(Settings(**values), sources)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_complaint(each, sources, file) for each in error.errors())
        ) from error


def bounds(field: FieldInfo) -> str:
    """What a setting takes, in words: `a whole number of 1 or more`."""
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    reads_text = any(hasattr(rule, "func") for rule in field.metadata)
    kind = "an amount of memory" if reads_text else _KINDS.get(field.annotation, "a value")
    above = next((rule.gt for rule in field.metadata if hasattr(rule, "gt")), None)
    if above is not None:
        return f"{kind} above {above}"
    low = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    high = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if low is not None and high is not None:
        return f"{kind} of {low} to {high}"
    if low is not None:
        return f"{kind} of {low} or more"
    return kind if high is None else f"{kind} of at most {high}"


def _read(file: Path) -> dict[str, Any]:
    """The values of a file, by known names."""
    try:
        values = TomlConfigSettingsSource(Settings, toml_file=file).toml_data if _is(file) else {}
    except (ValueError, RecursionError) as error:  # of tomllib, of a number of 5,000 digits
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read: {error.strerror}; --config or {FILE_VARIABLE} names the file"
        ) from error
    _refuse_unknown((key, f"{file}: {key}", key) for key in values)
    return values


def _is(file: Path) -> bool:
    """Whether it is there; the source takes what is no regular file for an empty one.

    Raises:
        OSError: it is not.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return True


def _environment() -> dict[str, Any]:
    """The values of the environment, by known names."""
    prefix = Settings.model_config["env_prefix"]
    names = [name for name in os.environ if name.upper().startswith(prefix)]
    _refuse_unknown(
        (name[len(prefix) :].lower(), name, variable)
        for name in names
        if name.upper() not in _OTHERS and os.environ[name] and not _is_of_kubernetes(name)
    )
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigurationError(f"the environment: {error}; give it as JSON") from error


def _is_of_kubernetes(name: str) -> bool:
    known = name.upper() in map(variable, Settings.model_fields)
    return not known and _KUBERNETES.fullmatch(name) is not None


def _refuse_unknown(given: Iterable[tuple[str, str, Any]]) -> None:
    """Refuse names that no setting has.

    Args:
        given: key, how it was written, and how to write the nearest one.
    """
    problems = []
    for key, written, spell in given:
        if key in Settings.model_fields:
            continue
        wanted = key.lower().replace("-", "_")
        near = difflib.get_close_matches(wanted, Settings.model_fields, n=1)
        hint = f"did you mean {spell(near[0]) if callable(spell) else near[0]}?" if near else ""
        problems.append(
            f"{written} is no setting: {hint or 'remove it'} (`bertd serve --help` lists them)"
        )
    if problems:
        raise ConfigurationError("; ".join(problems))


def _complaint(error: ErrorDetails, sources: Mapping[str, str], file: Path | None) -> str:
    """One fault: its source, what is wrong, what to give."""
    message = error["msg"].removeprefix("Value error, ")
    name = str(error["loc"][0]) if error["loc"] else ""
    if name not in Settings.model_fields:  # of several settings together
        return message
    source = sources[name]
    where = f"{source}: {name}" if file and source == str(file) else source
    if error["type"] == "value_error":
        return f"{where}: {message}"
    field = Settings.model_fields[name]
    outside = error["type"].startswith(("greater_than", "less_than"))
    finite = error["type"] != "finite_number"
    what = "out of range" if outside else "not what it takes" if finite else "no finite number"
    given = "the value" if _is_secret(field) else _clipped(repr(error["input"]))
    return f"{where}: {given} is {what}: give {bounds(field)}"


def _clipped(text: str) -> str:
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def _is_secret(field: FieldInfo) -> bool:
    return "Secret" in str(field.annotation)


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(_pairs(value))}}}"
    return _quoted(str(value))


def _pairs(value: Mapping[Any, Any]) -> Iterator[str]:
    return (f"{_quoted(str(key))} = {_toml(one)}" for key, one in value.items())


def _quoted(text: str) -> str:
    """A basic string, as https://toml.io/en/v1.0.0#string has it."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda one: f"\\u{ord(one[0]):04x}", plain) + '"'
