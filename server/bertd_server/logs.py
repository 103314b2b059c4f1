"""Structured logs on standard error: readable on a terminal, JSON lines otherwise."""

from __future__ import annotations

import sys

import structlog


def configure() -> None:
    """Set structlog up for a process of ours; a host application does its own."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
