"""Structured logs: ours on standard error, or wherever the host of our code has its own.

::

    get_logger ──structlog is configured──> as it says: by configure(), or by the host
         └───────it is not────────────────> logging.getLogger("bertd"), which the host configures

`bertd serve` calls :func:`configure`: readable lines on a terminal, JSON lines otherwise. Nothing
else in this package sets logging up.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from bertd_server.system.setting_types import LogFormat, LogLevel


def configure(form: LogFormat = "auto", level: LogLevel = "info") -> None:
    """Set structlog up for a process of ours; a host application does its own.

    Args:
        form: `auto` for what the module's first line says.
        level: the least that is written.
    """
    console = sys.stderr.isatty() if form == "auto" else form == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def get_logger(name: str) -> Any:
    """A logger for a module; it looks at each line where it goes, so that a host may be late."""
    return _Logger(name)


class _Logger:
    """What structlog's loggers offer, over those or over the standard library's."""

    def __init__(self, name: str) -> None:
        self._structured = structlog.get_logger(name)
        self._plain = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, _line],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def __getattr__(self, method: str) -> Any:
        """The method of the logger that counts now."""
        return getattr(self._structured if structlog.is_configured() else self._plain, method)


def _line(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    """An event as a line of text; the standard library writes the traceback, if there is one."""
    event, trace = fields.pop("event"), fields.pop("exc_info", None)
    said = " ".join([str(event), *(f"{name}={value!r}" for name, value in fields.items())])
    return (said,), {"exc_info": trace}
