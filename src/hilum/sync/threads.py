"""Threads that programs' handlers run in, and what passes between them and the loop.

Every queue here is bounded by what its users do: a worker has the requests of one association, of
which ``net`` serves a window at a time; an inbox and an outbox have a limit of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hilum.sync.loop import Loop

__all__ = ["Inbox", "Outbox", "Worker"]

log = logging.getLogger("hilum.sync")

T = TypeVar("T")

#: What ends a worker's thread.
_END: Any = object()


class Worker:
    """A thread that runs jobs one after another; it starts with the first one.

    Args:
        loop: where results go.
        name: of the thread.
        context: in which jobs run; None is an empty one.
    """

    def __init__(self, loop: Loop, name: str, context: contextvars.Context | None = None) -> None:
        self.name = name
        self._loop = loop
        self._context = context
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def is_here(self) -> bool:
        """Whether the caller is on this thread."""
        return self._thread is not None and threading.get_ident() == self._thread.ident

    def submit(self, job: Callable[[], None]) -> bool:
        """Run a job, which may not raise, after those before it; never waits.

        Returns:
            False after ``close``: the job is not run.
        """
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()
            self._jobs.put(job)
            return True

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the thread and give its result to the loop.

        Cancellation: the function runs to its end all the same; nobody gets its result.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def job() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                self._loop.post(_settle, future, None, error)
            else:
                self._loop.post(_settle, future, result, None)

        if not self.submit(job):
            raise RuntimeError("the association has ended")
        return await future

    def flush(self, seconds: float | None) -> None:
        """Wait until the jobs so far are done; at once in the thread itself, or where none ran."""
        if self._thread is None or self.is_here or self._loop.is_here:
            return
        done = threading.Event()
        if self.submit(done.set):
            done.wait(seconds)

    def close(self) -> None:
        """End the thread after the jobs so far; never waits."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._thread is not None:
                    self._jobs.put(_END)

    def join(self, seconds: float | None) -> None:
        """Wait for the thread's end, after ``close``."""
        if self._thread is not None and not self.is_here:
            self._thread.join(seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        if self._context is None:
            self._work()
        else:
            self._context.run(self._work)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _END:
            try:
                job()
            except BaseException:  # SystemExit in a handler ends the handler, not the thread
                log.exception("%s: a handler failed", self.name)
            del job


def _settle(future: asyncio.Future[T], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"a handler raised {error!r}"))


class Inbox(Generic[T]):
    """What the loop gives to a thread that asks for it.

    Args:
        loop: the giver.
        limit: with how many it is full.
    """

    def __init__(self, loop: Loop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._items: deque[T] = deque()
        self._condition = threading.Condition()
        self._room: asyncio.Future[None] | None = None
        #: How many have been taken so far.
        self.taken = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether so many wait that no more should be added."""
        return len(self._items) >= self._limit

    def __contains__(self, item: object) -> bool:
        with self._condition:
            return item in self._items

    def put_now(self, item: T) -> None:
        """Add one beyond the limit; on the loop."""
        with self._condition:
            self._items.append(item)
            self._condition.notify()

    async def room(self) -> None:
        """Wait while it is full, and then until half of it is taken."""
        self._room = asyncio.get_running_loop().create_future()
        try:
            # Between the two the thread may have taken everything without seeing ``_room``.
            if self.is_full:
                await self._room
        finally:
            self._room = None

    def get(self) -> T:
        """The next one; waits for it, in the thread that takes."""
        with self._condition:
            while not self._items:
                self._condition.wait()
            item = self._items.popleft()
            self.taken += 1
            room = self._room
            if room is not None and len(self._items) <= self._limit // 2:
                self._loop.post(_settle, room, None, None)
        return item

    def clear(self) -> list[T]:
        """Take everything; on the loop."""
        with self._condition:
            items = list(self._items)
            self._items.clear()
        if self._room is not None:
            _settle(self._room, None, None)
        return items


class Outbox(Generic[T]):
    """What a handler's thread gives to the loop.

    Args:
        loop: the taker.
        limit: how many may wait in it before ``put`` waits.
    """

    def __init__(self, loop: Loop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._items: deque[T] = deque()
        self._condition = threading.Condition()
        self._asked: asyncio.Future[None] | None = None
        self._ended = False
        self._refused = False
        #: Nobody takes any more.
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Add one, in the handler's thread; waits while the peer takes none.

        Returns:
            False when nobody will take it.
        """
        with self._condition:
            while len(self._items) >= self._limit and not self.closed:
                self._condition.wait()
            if self.closed or self._refused:
                return False
            self._items.append(item)
            self._wake()
        return True

    def end(self) -> None:
        """There will be no more; in the handler's thread."""
        with self._condition:
            if not self._refused:
                self._ended = True
                self._wake()

    def refuse(self) -> None:
        """Take what is here and nothing more, not even the end; in the handler's thread."""
        with self._condition:
            self._refused = True

    def _wake(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._loop.post(_settle, asked, None, None)

    async def page(self) -> list[T]:
        """What is there, at least one; nothing at the end. On the loop.

        Cancellation: nothing is lost.
        """
        while True:
            with self._condition:
                if self._items or self._ended:
                    page = list(self._items)
                    self._items.clear()
                    self._condition.notify_all()
                    return page
                asked = self._asked = asyncio.get_running_loop().create_future()
            await asked

    def close(self) -> None:
        """Nobody takes any more; on the loop."""
        with self._condition:
            self.closed = True
            self._items.clear()
            self._condition.notify_all()
