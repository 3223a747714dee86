"""Running a command's coroutine, and stopping it."""

from __future__ import annotations

import asyncio
import logging
import signal
from argparse import Namespace
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["reason", "run", "set_up_logging", "stop_request"]

T = TypeVar("T")


def reason(error: Exception) -> str:
    """An error for people: of the system's own the file and the words, without the number."""
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror.lower()
        return f"{error.filename}: {words}" if error.filename is not None else words
    return str(error)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop where that is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


def stop_request() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set from now on.

    Where the loop has no signals (Windows) it is never set, and SIGINT cancels the command.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    return stop


def set_up_logging(options: Namespace) -> None:
    """Log to standard error: warnings, with ``-v`` and ``-d`` more, with ``-q`` errors only."""
    level = logging.WARNING
    if options.debug:
        level = logging.DEBUG
    elif options.verbose:
        level = logging.INFO
    elif options.quiet:
        level = logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", force=True)
