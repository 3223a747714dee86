"""Logging of the gateway: the standard library's loggers, on standard error.

At INFO no line carries a patient's data; what comes from a peer is escaped.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import structlog

__all__ = ["set_up"]


def set_up(level: str, *, json: bool = False) -> None:
    """Send every logger's lines to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        json: one JSON document per line, by structlog, instead of text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if json else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # It reports every plugin of its own at INFO.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class _Text(logging.Formatter):
    """``2026-11-26T11:03:35.123456Z [info    ] what happened [hilum.net]``.

    Not structlog's: it takes 3 MB and four times as long, with two lines for every association.
    A traceback follows in lines of its own; it does not show what variables hold.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name there
        seconds, fraction = divmod(record.created, 1)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        level, said = record.levelname.lower(), _on_one_line(record.message)
        return f"{stamp}.{int(fraction * 1e6):06}Z [{level:<8}] {said} [{record.name}]"


def _on_one_line(text: str) -> str:
    """Control characters could begin a line of their own, or steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────


def _json() -> logging.Formatter:
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _values_on_one_line,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )


def _values_on_one_line(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _on_one_line(value)
    return event
