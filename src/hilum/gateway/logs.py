"""Logging of the gateway: structlog over the standard library's loggers.

At INFO no line carries a patient's data; what comes from a peer is escaped.
"""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["set_up"]


def set_up(level: str, *, json: bool = False) -> None:
    """Send every logger's lines to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        json: one JSON document per line instead of text.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        # Plain: the default traceback shows local variables, and a patient's data with them.
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _on_one_line,
                *rendering,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # It reports every plugin of its own at INFO.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _on_one_line(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Control characters could begin a line of their own, or steer the terminal."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode() for c in value
            )
    return event
