"""Where ``hilum scp store`` puts data sets: files in one folder, or nowhere.

Files appear under their final name when they are whole. Nothing is flushed: after a power cut they
may be gone although the sender was told success. The gateway is for keeping.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from hilum.errors import ConfigurationError
from hilum.net.association import Association
from hilum.net.service import Context, Outcome, Part, StoreSink
from hilum.services.part10 import encode_head, file_name
from hilum.wire.command import Command

__all__ = ["Counter", "Folder", "Writer", "receiver_of"]

log = logging.getLogger("hilum.cli")

T = TypeVar("T")
Job = tuple[Callable[[], object], "asyncio.Future[object]"]

SMALL = 64 << 10
"""A data set up to this size is kept in memory until it is whole, then written at once."""

_BATCH = 64
_WRITE_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
)
_SUCCESS = Outcome(0x0000)


class Counter:
    """Receives and drops: data sets and bytes are counted."""

    def __init__(self) -> None:
        self.received = 0
        self.bytes = 0

    def open_store(self, command: Command, context: Context, association: Association) -> StoreSink:
        """For ``Accept.open_store``."""
        return _Dropped(self, command)

    def count(self, command: Command, length: int) -> None:
        """One data set more."""
        self.received += 1
        self.bytes += length
        log.info("received %s, %d bytes", ascii(command.affected_sop_instance_uid), length)

    async def close(self) -> None:
        """Nothing is open."""


class _Dropped:
    def __init__(self, counter: Counter, command: Command) -> None:
        self._counter = counter
        self._command = command
        self._length = 0

    def write(self, parts: Sequence[Part]) -> bool:
        self._length += sum(map(len, parts))
        return True

    async def drained(self) -> None:
        """Nothing is held."""

    def commit(self) -> Awaitable[Outcome]:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._counter.count(self._command, self._length)
        done.set_result(_SUCCESS)
        return done

    def abort(self, cause: BaseException) -> None:
        """Nothing is held."""


class Writer:
    """A thread that does jobs one after another, and tells the loop of many at a time."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Have a job done after those before it; the future gets its result or exception."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((job, done))  # type: ignore[arg-type]  # of its own job's type
        return done

    async def close(self) -> None:
        """Do what is waiting, then end."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            finished = [_done(job)]
            while len(finished) < _BATCH:
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
                if job is None:
                    self._jobs.put(None)
                    break
                finished.append(_done(job))
            self._loop.call_soon_threadsafe(_tell, finished)


def _done(job: Job) -> tuple[asyncio.Future[object], object, BaseException | None]:
    work, future = job
    try:
        return future, work(), None
    except Exception as error:
        return future, None, error


def _tell(finished: list[tuple[asyncio.Future[object], object, BaseException | None]]) -> None:
    for future, result, error in finished:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # retrieved: who gave up waiting need not look


class Folder(Counter):
    """Receives into files ``<SOP Instance UID>.dcm`` of one folder; the newest of a UID stays.

    Args:
        path: an existing folder.
        threads: how many write; the data sets of an association always go to the same one.
    """

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        super().__init__()
        self.path = os.fspath(path)
        self._writers = [Writer(f"writer {number}") for number in range(threads)]
        self._numbers = itertools.count()

    def open_store(self, command: Command, context: Context, association: Association) -> StoreSink:
        """For ``Accept.open_store``."""
        writer = self._writers[association.number % len(self._writers)]
        return _File(self, writer, command, context.transfer_syntax)

    def part_name(self) -> str:
        """The name of a file that is not whole yet; of a form that no instance's file has."""
        return os.path.join(self.path, f".{os.getpid()}-{next(self._numbers)}.part")  # noqa: PTH118

    def final_name(self, command: Command) -> str:
        """The file of an instance, always directly in the folder."""
        return os.path.join(self.path, file_name(command.affected_sop_instance_uid))  # noqa: PTH118

    async def close(self) -> None:
        """Write what has come."""
        for writer in self._writers:
            await writer.close()


class _File:
    """One data set on its way into a file. Methods run on the loop, ``_…_file`` in the writer."""

    def __init__(
        self, folder: Folder, writer: Writer, command: Command, transfer_syntax: str
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._command = command
        head = encode_head(
            command.affected_sop_class_uid, command.affected_sop_instance_uid, transfer_syntax
        )
        self._waiting: list[Part] = [head]
        self._length = 0
        self._written: asyncio.Future[None] | None = None
        self._part = ""
        self._fd = -1
        self._failed: OSError | None = None

    def write(self, parts: Sequence[Part]) -> bool:
        """Keep a small data set; hand a large one to the writer part by part."""
        self._length += sum(map(len, parts))
        if self._written is None and self._length <= SMALL:
            self._waiting.extend(bytes(part) for part in parts)
            return True
        batch, self._waiting = [*self._waiting, *parts], []
        self._written = self._writer.do(lambda: self._write_file(batch))
        return False

    async def drained(self) -> None:
        """Until the writer is done with the parts."""
        if self._written is not None:
            await asyncio.shield(self._written)

    def commit(self) -> Awaitable[Outcome]:
        """Give the file its name."""
        rest, self._waiting = self._waiting, []
        # The writer does its jobs in order: whatever is still being written comes before this.
        done = self._writer.do(lambda: self._finish_file(rest))
        done.add_done_callback(self._finished)
        return done

    def _finished(self, done: asyncio.Future[Outcome]) -> None:
        if not done.cancelled() and done.result() is _SUCCESS:
            self._folder.count(self._command, self._length)

    def abort(self, cause: BaseException) -> None:
        """Remove what was written."""
        self._waiting = []
        if self._written is not None:
            self._writer.do(self._remove_file)

    def _write_file(self, parts: list[Part]) -> None:
        if self._failed is not None:
            return
        try:
            if self._fd < 0:
                self._part = self._folder.part_name()
                self._fd = os.open(self._part, _WRITE_FLAGS, 0o666)
            _write_all(self._fd, parts)
        except OSError as error:  # said by commit; until then the rest passes by
            self._failed = error

    def _finish_file(self, rest: list[Part]) -> Outcome:
        name = self._folder.final_name(self._command)
        try:
            if rest:
                self._write_file([b"".join(rest)])
            if self._failed is not None:
                raise self._failed
            fd, self._fd = self._fd, -1
            os.close(fd)
            os.replace(self._part, name)  # noqa: PTH105 - 10 µs a file less than Path
        except OSError as error:
            self._remove_file()
            log.error("cannot write %s: %s", name, error.strerror)
            return Outcome(0xA700, "cannot write")
        self._part = ""
        return _SUCCESS

    def _remove_file(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                os.close(fd)
        if self._part:
            with suppress(OSError):
                os.unlink(self._part)  # noqa: PTH108
            self._part = ""


def _write_all(fd: int, parts: Sequence[Part]) -> None:
    if hasattr(os, "writev"):
        while parts:
            # The system takes so many buffers in one call (IOV_MAX on Linux is 1024).
            some, parts = parts[:1024], parts[1024:]
            left = sum(map(len, some)) - os.writev(fd, some)
            if left:
                _write_one(fd, memoryview(b"".join(some))[-left:])
    else:
        for part in parts:
            _write_one(fd, memoryview(part))


def _write_one(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def receiver_of(options: Namespace) -> Counter:
    """What the options of a receiver ask for: a folder, or to count only.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if options.no_output:
        return Counter()
    if not options.out.is_dir():
        raise ConfigurationError(f"no folder '{options.out}'; make it, or use --no-output")
    return Folder(options.out)
