"""The one event loop behind the blocking API, in a thread of its own.

It is started by the first association or server and runs until the interpreter exits. Nothing that
a program wrote ever runs in it, and it waits for nobody.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakSet

__all__ = ["Closing", "Loop", "current"]

T = TypeVar("T")

# Names are looked up in threads; more at once than these wait for one another.
LOOK_UP_THREADS = 4
# At the interpreter's exit associations are aborted; nothing waits longer than this for it.
EXIT_SECONDS = 2.0


class Closing:
    """Something to end before the loop does."""

    async def close_at_exit(self) -> None:
        """End it; called on the loop."""


class Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = _new_event_loop()
        self.open: WeakSet[Closing] = WeakSet()
        self._executor = concurrent.futures.ThreadPoolExecutor(
            LOOK_UP_THREADS, thread_name_prefix="hilum-look-up"
        )
        self.loop.set_default_executor(self._executor)
        self.thread = threading.Thread(target=self._run, name="hilum", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    @property
    def is_here(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.get_ident() == self.thread.ident

    def check(self) -> None:
        """Raise where a blocking call may not be made.

        Raises:
            RuntimeError: on the loop's thread, which would wait for itself, or in a forked child,
                which has no such thread.
        """
        if self.pid != os.getpid():
            raise RuntimeError(
                "hilum.sync was used before this process was forked, and its event loop is in the "
                "parent; fork before the first association or server, or start the process by spawn"
            )
        if self.is_here:
            raise RuntimeError(
                "a blocking call on the event loop's own thread would wait for itself; "
                "use hilum.net there"
            )

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            RuntimeError: see ``check``.

        An exception that interrupts the waiting, such as ``KeyboardInterrupt``, cancels it.
        """
        try:
            self.check()
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the event loop was stopped") from None
        except BaseException:
            future.cancel()
            raise

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call on the loop, soon; never waits, from any thread, and nothing after the exit."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *args)

    def stop(self) -> None:
        """End what is open, then the loop."""
        if self.pid != os.getpid() or not self.thread.is_alive():
            return

        async def end() -> None:
            ends = [each.close_at_exit() for each in tuple(self.open)]
            await asyncio.gather(*ends, return_exceptions=True)
            await asyncio.sleep(0)  # what was written goes to the sockets
            self.loop.stop()

        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(end(), self.loop)
        self.thread.join(EXIT_SECONDS)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    with contextlib.suppress(ImportError):
        import uvloop

        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made
    return asyncio.new_event_loop()


_current: Loop | None = None
_starting = threading.Lock()


def current() -> Loop:
    """The process's loop, started when it is first asked for.

    Raises:
        RuntimeError: see ``Loop.check``.
    """
    global _current
    if _current is None:
        with _starting:
            if _current is None:
                _current = Loop()
                atexit.register(_current.stop)
    _current.check()
    return _current
