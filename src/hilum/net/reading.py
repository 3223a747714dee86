"""Reading ahead: a thread reads the next data sets while the current one is being sent."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple, Protocol

from hilum.net.sources import Source

__all__ = ["Data", "Kept", "ReadAhead", "Reader"]

Data = tuple[bytes] | AsyncIterator[bytes]
"""A data set: in one piece where it is small, else piece by piece."""


class Reader(Protocol):
    """Gives one data set after another to the coroutine that sends them."""

    current: Source
    """What ``take`` gave last, or could not give."""

    async def ready(self) -> bool:
        """Wait for the next data set; False when there is none any more."""

    def take(self) -> tuple[Source, Data]:
        """The next data set, after ``ready`` has returned True.

        Raises:
            One of ``READ_ERRORS``: it could not be read; ``current`` says which.
        """

    def skip(self) -> None:
        """The rest of ``current`` is not wanted; what was read of it is passed over later."""

    def close(self) -> list[Source]:
        """Stop; returns what was taken and not sent. A read in progress ends by itself."""


class Kept:
    """A reader of sources that are all in memory already: no thread, nothing taken ahead."""

    current: Source

    def __init__(self, sources: deque[Source]) -> None:
        self._sources = sources

    async def ready(self) -> bool:
        """See ``Reader``."""
        return bool(self._sources)

    def take(self) -> tuple[Source, Data]:
        """See ``Reader``."""
        source = self.current = self._sources.popleft()
        assert source.content is not None
        return source, (source.content,)

    def skip(self) -> None:
        """Nothing is left of it."""

    def close(self) -> list[Source]:
        """Nothing was taken ahead."""
        return []


class _Read(NamedTuple):
    source: Source
    data: bytes
    first: bool
    last: bool
    error: Exception | None


class ReadAhead:
    """A reader that reads in a thread, within so many bytes, ahead of the coroutine.

    One hop between thread and loop serves as many small data sets as were read meanwhile.

    Args:
        take: gives the next source, None at the end; called in the thread.
        pieces: gives the data set of a source as it is wanted; called in the thread.
        room: bytes read ahead, one piece more at most.
        most: data sets read ahead.
    """

    current: Source

    def __init__(
        self,
        take: Callable[[], Source | None],
        pieces: Callable[[Source], Iterator[bytes]],
        *,
        room: int,
        most: int,
    ) -> None:
        self._take = take
        self._pieces_of = pieces
        self._room = room
        self._most = most
        self._loop = asyncio.get_running_loop()
        # What the thread waits for, each until half is free again: then it fills up in one go,
        # instead of being woken, and taking the interpreter from the loop, at every data set.
        self._lock = threading.Lock()
        self._fewer = threading.Condition(self._lock)
        self._smaller = threading.Condition(self._lock)
        # All below under the lock.
        self._reads: deque[_Read] = deque()
        self._held = 0
        self._taken: deque[Source] = deque()
        self._given_up: Source | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._ended = self._closed = False
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
        self._thread.start()

    # ── in the thread ───────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while (source := self._next_source()) is not None:
            first = True
            try:
                held: bytes | None = None
                for piece in self._pieces_of(source):
                    if held is not None:
                        if not self._put(_Read(source, held, first, False, None)):
                            break
                        first = False
                    held = piece
                else:
                    self._put(_Read(source, held or b"", first, True, None))
            except Exception as error:  # one that is not of READ_ERRORS ends the sending
                self._put(_Read(source, b"", first, True, error))
        with self._lock:
            self._ended = True
            self._wake()

    def _next_source(self) -> Source | None:
        with self._lock:
            while len(self._taken) >= self._most and not self._closed:
                self._fewer.wait()
            if self._closed:
                return None
            source = self._take()
            if source is not None:
                self._taken.append(source)
            return source

    def _put(self, read: _Read) -> bool:
        """Hand it over; False when nobody wants the rest of this source."""
        with self._lock:
            while self._held >= self._room and not self._closed:
                if self._given_up is read.source:
                    return False
                self._smaller.wait()
            if self._closed or self._given_up is read.source:
                return False
            self._reads.append(read)
            self._held += len(read.data)
            self._wake()
        return True

    def _wake(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._loop.call_soon_threadsafe(_set, wanted)

    # ── on the loop ─────────────────────────────────────────────────────────────────────────

    async def ready(self) -> bool:
        """See ``Reader``."""
        while True:
            with self._lock:
                while self._reads and not self._reads[0].first:
                    self._drop()
                if self._reads:
                    return True
                if self._ended:
                    return False
                wanted = self._wanted = self._loop.create_future()
            await wanted

    def take(self) -> tuple[Source, Data]:
        """See ``Reader``."""
        with self._lock:
            read = self._drop()
            self._taken.popleft()
            if len(self._taken) <= self._most // 2:
                self._fewer.notify()
        self.current = read.source
        if read.error is not None:
            raise read.error
        return read.source, (read.data,) if read.last else self._pieces(read)

    def _drop(self) -> _Read:
        read = self._reads.popleft()
        self._held -= len(read.data)
        if self._held <= self._room // 2:
            self._smaller.notify()
        return read

    async def _pieces(self, read: _Read) -> AsyncIterator[bytes]:
        yield read.data
        while not read.last:
            read = await self._next_piece()
            if read.error is not None:
                raise read.error
            yield read.data

    async def _next_piece(self) -> _Read:
        while True:
            with self._lock:
                if self._reads:
                    return self._drop()
                wanted = self._wanted = self._loop.create_future()
            await wanted

    def skip(self) -> None:
        """See ``Reader``."""
        with self._lock:
            self._given_up = self.current
            self._smaller.notify()

    def close(self) -> list[Source]:
        """See ``Reader``."""
        with self._lock:
            self._closed = True
            self._wanted = None
            self._fewer.notify()
            self._smaller.notify()
            return list(self._taken)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
