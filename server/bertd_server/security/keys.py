"""API keys: made once, kept as hashes in a file, read again when it changes.

::

    bertd_<id>_<secret>          what a caller sends, as `authorization: Bearer …`
      id                         says which entry of the file it is; no secret
      secret                     256 random bits

The file has `sha256:` and the SHA-256 of the whole key. A slow hash, as for passwords, would gain
nothing: it makes guessing dear, and nobody guesses 256 random bits. It would cost each call what
a model costs. Hashes are compared in constant time, with one that nothing matches where the id is
not known.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
import stat
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from bertd_server.errors import MisusedError, PermissionDenied, Unauthenticated
from bertd_server.security.allowance import Allowance, KeyLimits
from bertd_server.security.files import stamp
from bertd_server.security.scopes import Scope
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

PREFIX = "bertd"
HASH = "sha256:"
ID = r"^[a-z0-9][a-z0-9.-]{0,63}$"
_BEARER = "bearer "
_NOBODY = HASH + "0" * 64  # no key has it: SHA-256 gives it for nothing that anybody can find
_LOOK_SECONDS = 1.0
_REMEDY = "send `authorization: Bearer KEY` with a key of this server"


class KeyEntry(BaseModel):
    """One key in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=ID)
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    scopes: frozenset[Scope] = Field(min_length=1)
    expires: AwareDatetime | None = None
    requests_per_second: float | None = Field(None, gt=0)
    burst: int | None = Field(None, ge=1)
    concurrent_calls: int | None = Field(None, ge=1)
    tokens_per_second: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _a_burst_is_of_a_rate(self) -> Self:
        if self.burst is not None and self.requests_per_second is None:
            raise ValueError("burst without requests_per_second: give both")
        return self

    @property
    def limits(self) -> KeyLimits:
        """What it may use; a burst is a second's worth where it is not given."""
        rate = self.requests_per_second or math.inf
        return KeyLimits(
            rate,
            self.burst or max(1.0, rate),
            self.concurrent_calls or math.inf,
            self.tokens_per_second or math.inf,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [entry.id for entry in self.keys]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"id {twice[0]!r} is there twice: give each key its own")
        return self


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whose key a call has, and what it may still use."""

    entry: KeyEntry
    allowance: Allowance

    def require(self, scope: Scope | None) -> None:
        """Refuse a call for which the key is not.

        Raises:
            PermissionDenied: it lacks the scope.
        """
        if scope is not None and scope not in self.entry.scopes:
            raise PermissionDenied(
                f"key {self.entry.id!r} has scope {', '.join(sorted(self.entry.scopes))}, and this "
                f"call needs {scope}: use a key that has it",
                reason="missing_scope",
            )


class KeyRing:
    """The keys of a file. Use it on one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Read the file: TOML, or JSON by its suffix .json.

        Args:
            path: the file; see docs/security.md.
            clock: seconds, monotonic.
            now: seconds since 1970, UTC.

        Raises:
            MisusedError: it holds no keys, or somebody else may write it.
        """
        self._path = path
        self._clock, self._now = clock, now
        self._stamp = stamp(path)
        self._looked = clock()
        try:
            self._callers = self._read({})
        except (OSError, ValueError) as error:
            raise MisusedError(f"--api-keys: {error}") from error

    def reload(self) -> bool:
        """Read the file now, changed or not; a bad one leaves the keys as they are.

        Returns:
            whether it was good.
        """
        self._stamp = stamp(self._path)
        try:
            self._callers = self._read(self._callers)
        except (OSError, ValueError) as error:
            log.error(  # noqa: TRY400 - the message says it all
                "keys not reloaded",
                error=str(error),
                remedy="mend the file; until then the keys before the change count",
            )
            return False
        log.info("keys reloaded", file=str(self._path), ids=sorted(self._callers))
        return True

    def find(self, authorization: str | None) -> KeyHolder:
        """Whose key it is.

        Args:
            authorization: the header's value; None without one.

        Raises:
            Unauthenticated: there is no key, or none that counts.
        """
        self._follow()
        if authorization is None:
            raise Unauthenticated(f"no API key: {_REMEDY}", reason="missing_key")
        if not authorization[: len(_BEARER)].lower() == _BEARER:
            raise Unauthenticated(f"authorization is not Bearer: {_REMEDY}", reason="missing_key")
        key = authorization[len(_BEARER) :].strip()
        caller = self._callers.get(_id_of(key))
        expected = _NOBODY if caller is None else caller.entry.hash
        if not hmac.compare_digest(hashed(key), expected) or caller is None:
            raise Unauthenticated(f"the API key is not known: {_REMEDY}", reason="unknown_key")
        expires = caller.entry.expires
        if expires is not None and expires.timestamp() <= self._now():
            raise Unauthenticated(
                f"key {caller.entry.id!r} expired on {expires.isoformat()}: get a new one",
                reason="expired_key",
            )
        return caller

    def _follow(self) -> None:
        """Read the file again if it has changed, looking once a second at most."""
        now = self._clock()
        if now < self._looked + _LOOK_SECONDS:
            return
        self._looked = now
        if stamp(self._path) != self._stamp:
            self.reload()

    def _read(self, before: dict[str, KeyHolder]) -> dict[str, KeyHolder]:
        """Read the file; what a key has used stays counted while its limits are the same.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not as it must be.
        """
        mode = self._path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{self._path} is a folder: name the file of keys in it")
        if mode & stat.S_IWOTH:
            raise ValueError(
                f"{self._path} can be written by all, who could add keys: chmod o-w {self._path}"
            )
        if mode & stat.S_IROTH:
            log.warning(
                "keys file readable by all",
                file=str(self._path),
                remedy="it has hashes alone, but who has keys is nobody's business: chmod 640, or "
                "defaultMode: 0440 of the volume",
            )
        callers = {}
        for entry in _parsed(self._path).keys:
            old = before.get(entry.id)
            same = old is not None and old.allowance.limits == entry.limits
            allowance = (
                old.allowance if old is not None and same else Allowance(entry.limits, self._clock)
            )
            callers[entry.id] = KeyHolder(entry, allowance)
        return callers


def _parsed(path: Path) -> _File:
    try:
        text = path.read_text("utf-8")
        raw: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return _File.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ValueError(f"{path}: {problems}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _id_of(key: str) -> str:
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def hashed(key: str) -> str:
    """What the file has of a key."""
    return HASH + hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def new_key(id_: str) -> str:
    """A key of 256 random bits for an id."""
    return f"{PREFIX}_{id_}_{secrets.token_urlsafe(32)}"


def lines_for(key: str, id_: str, scopes: frozenset[Scope], expires: datetime | None) -> str:
    """The entry of a key, in TOML."""
    listed = ", ".join(f'"{scope}"' for scope in sorted(scopes))
    lines = ["[[keys]]", f'id = "{id_}"', f'hash = "{hashed(key)}"', f"scopes = [{listed}]"]
    if expires is not None:
        lines.append(f"expires = {expires.isoformat(timespec='seconds')}")
    return "\n".join(lines)
