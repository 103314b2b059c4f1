"""What a look at a repository has to say: once, and again when the reason is another one."""

from __future__ import annotations

from bertd_server.system.logs import get_logger

log = get_logger("bertd")


class Said:
    """Warnings that one look after the other would repeat."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, ...], str] = {}
        self._now: dict[tuple[str, ...], str] = {}

    def forget(self) -> None:
        """Another look begins: what the last one did not say is news when it comes back."""
        self._before, self._now = self._now, {}

    def warn(self, event: str, reason: str, **what: str) -> None:
        """Log a reason, unless this look or the last one has.

        Args:
            event: what is the matter.
            reason: why.
            what: names of what it is about.
        """
        key = (event, *what.values())
        if reason not in {self._before.get(key), self._now.get(key)}:
            log.warning(event, reason=reason, **what)
        self._now[key] = reason
