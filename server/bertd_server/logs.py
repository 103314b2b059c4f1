"""Structured logs on standard error: readable on a terminal, JSON lines otherwise."""

from __future__ import annotations

import logging
import sys

import structlog

from bertd_server.values import LogFormat, LogLevel


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
