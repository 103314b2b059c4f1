"""What SIGHUP reloads: settings that may change while the server runs, and whatever else registers.

::

    SIGHUP ──> reload ──> settings read again ──> those of RELOADABLE: applied
                 │                 └────────────> others that changed: "needs a restart"
                 └──────> each registered part: certificates, keys, … reads itself again

What cannot be read keeps its old value and is logged; a reload never ends the server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bertd_server.config.settings import RELOADABLE, Settings
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

Reread = Callable[[], Awaitable[object] | object]


@dataclass(slots=True)
class ReloadOutcome:
    """How a reload went.

    Attributes:
        reloaded: parts that read themselves again.
        changed: settings with a new value in effect.
        needs_restart: settings whose new value has no effect before a restart.
        failed: parts that keep what they had, and why.
    """

    reloaded: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    needs_restart: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Reloading:
    """The parts of a server that can be read again. Use it on one event loop.

    Attributes:
        settings: those in effect.
        reread: reads the settings again, from wherever they came; may raise.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reread: Callable[[], Settings] = lambda: self.settings
        self._parts: dict[str, Reread] = {}
        self._appliers: list[Callable[[Settings], None]] = []
        self._turn = asyncio.Lock()

    def add(self, name: str, reread: Reread) -> None:
        """Register a part.

        Args:
            name: for the log.
            reread: reads it again, and keeps what it had where it raises, or logs why and gives
                False; may be a coroutine function, and should be where it takes long.
        """
        self._parts[name] = reread

    def on_settings(self, apply: Callable[[Settings], None]) -> None:
        """Have `apply` called with the settings once any that may change has changed."""
        self._appliers.append(apply)

    async def reload(self) -> ReloadOutcome:
        """Read all again, one part after the other; no error leaves this."""
        async with self._turn:
            outcome = ReloadOutcome()
            await self._try("settings", self._reload_settings, outcome)
            for name, reread in self._parts.items():
                if await self._try(name, reread, outcome):
                    outcome.reloaded.append(name)
        log.info(
            "reloaded",
            parts=outcome.reloaded,
            settings={name: str(getattr(self.settings, name)) for name in outcome.changed},
            needs_restart=outcome.needs_restart,
            failed=sorted(outcome.failed),
        )
        return outcome

    async def _try(
        self, name: str, work: Callable[..., Awaitable[object] | object], outcome: ReloadOutcome
    ) -> bool:
        """Whether it went well."""
        try:
            done = work(outcome) if work == self._reload_settings else work()
            if inspect.isawaitable(done):
                done = await done
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
            outcome.failed[name] = str(error)
            log.error(  # noqa: TRY400 - the words say it; nobody needs the stack
                "not reloaded", part=name, error=str(error), remedy="the old one stays in effect"
            )
            return False
        if done is False:
            outcome.failed[name] = "it has logged why"
            return False
        return True

    def _reload_settings(self, outcome: ReloadOutcome) -> None:
        found, old = self.reread(), self.settings
        differ = [n for n in Settings.model_fields if getattr(found, n) != getattr(old, n)]
        outcome.needs_restart = [name for name in differ if name not in RELOADABLE]
        changed = [name for name in differ if name in RELOADABLE]
        if not changed:
            return
        self.settings = old.model_copy(update={name: getattr(found, name) for name in changed})
        for apply in self._appliers:
            apply(self.settings)
        outcome.changed = changed
