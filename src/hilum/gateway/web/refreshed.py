"""A value that is looked up in a thread, at most so often, and waited for only so long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Answer", "Refreshed"]

T = TypeVar("T")

# Looking takes at most this share of one thread, however often someone asks.
_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a look-up gave.

    Args:
        value: the last one; None while there is none.
        in_time: the look-up that was due ended in time.
        age: seconds since `value` was looked up.
    """

    value: T | None
    in_time: bool
    age: float


class Refreshed(Generic[T]):
    """Looks up a value when it is asked for and the last one is old. Used on one event loop.

    One look-up runs at a time: one that hangs (a dead disk) costs one thread, not one per request.

    Args:
        look: runs in a thread of its own; should not raise.
        every: seconds for which a value is good; longer when looking it up takes long.
        patience: seconds that `get` waits for a look-up.
    """

    def __init__(self, look: Callable[[], T], *, every: float, patience: float) -> None:
        self._look = look
        self._every = every
        self._patience = patience
        self._running: asyncio.Future[None] | None = None
        self._value: T | None = None
        self._looked = 0.0
        self._good_until = float("-inf")

    async def get(self) -> Answer[T]:
        """The value, looked up anew where it is due.

        Cancellation: the look-up goes on and serves whoever asks next.

        Raises:
            Exception: what the look-up raised.
        """
        if self._running is None and time.monotonic() >= self._good_until:
            self._start()
        if self._running is None:
            return self._answer(in_time=True)
        done, _ = await asyncio.wait({self._running}, timeout=self._patience)
        for future in done:
            future.result()
        return self._answer(in_time=bool(done))

    def _answer(self, *, in_time: bool) -> Answer[T]:
        return Answer(self._value, in_time, time.monotonic() - self._looked)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        running = self._running = loop.create_future()

        def ended(error: Exception | None) -> None:
            self._running = None
            if error is None:
                running.set_result(None)
            else:
                running.set_exception(error)

        def look() -> None:
            error = self._timed()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended, error)

        # Not an executor: the end of the process would wait for its threads.
        threading.Thread(target=look, name="look", daemon=True).start()

    def _timed(self) -> Exception | None:
        began = time.monotonic()
        try:
            self._value = self._look()
        except Exception as error:
            return error
        self._looked = time.monotonic()
        self._good_until = self._looked + max(self._every, (self._looked - began) / _SHARE)
        return None
