"""How a batch of files becomes durable: strategies that can stand in for each other.

Each is judged by the same test, which cuts the power of a file system and counts what is left.

``fsync`` flushes every file on four threads, then every folder that changed. ``syncfs`` flushes
the whole file system once; it is faster for many small files and slower beside other writers.
``auto`` does whichever was faster lately for batches of that size.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

from hilum.gateway.store import posix
from hilum.gateway.store.directories import Directory, unflushed

__all__ = ["Auto", "Flushable", "Fsync", "Strategy", "Syncfs", "make_strategy"]

# More do not help: the file system's journal is one.
_THREADS = 4
# Often enough to notice within seconds of load that the disk has changed, rare enough to cost 3 %.
_EXPLORE_EVERY = 32
# Medians: a single flush takes many times as long when another program has just written a lot.
_SAMPLES = 5
_FIRST_SAMPLES = 3
_LARGE = 64 * 1024  # mean bytes per object: above, write-back decides and not the journal


class Flushable(Protocol):
    """A file on its way, as a strategy sees it. The methods raise OSError."""

    @property
    def directory(self) -> Directory:
        """The folder that its file is in; only after `put`."""

    @property
    def length(self) -> int:
        """Bytes of its data set."""

    @property
    def suspect(self) -> bool:
        """A flush failed since its file was begun, so its own file must be flushed and asked."""

    def put(self) -> None:
        """Its file exists under its final name, with all bytes handed to the kernel."""

    def sync(self) -> None:
        """`put`, then the file's bytes are on stable storage, and its descriptor is closed."""

    def close(self) -> None:
        """Close its descriptor."""


Outcome = OSError | None


class Strategy(Protocol):
    """Makes a batch durable; one batch at a time.

    Attributes:
        name: as in the configuration.
    """

    name: str

    def flush(self, batch: Sequence[Flushable]) -> list[Outcome]:
        """Make files, their names and the folders above them durable.

        Returns:
            For each file None when it is durable, else the error; nothing is retried.
        """

    def stop(self) -> None:
        """Free threads and descriptors."""


class Fsync:
    """Flush every file, then every folder that changed, each once.

    Args:
        on_failure: called when a folder could not be flushed.
        threads: how many flush at the same time, the calling one included.
    """

    name = "fsync"

    def __init__(self, on_failure: Callable[[], None], threads: int = _THREADS) -> None:
        self._on_failure = on_failure
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def flush(self, batch: Sequence[Flushable]) -> list[Outcome]:
        """See `Strategy.flush`."""
        outcomes = self._spread([file.sync for file in batch])
        wanted = {
            directory: None
            for file, outcome in zip(batch, outcomes, strict=True)
            if outcome is None
            for directory in _to_flush(file.directory)
        }
        failures = self._flush_directories(list(wanted))
        for at, file in enumerate(batch):
            if outcomes[at] is None:
                outcomes[at] = _first_failure(file.directory, failures)
        for file, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                _mark_durable(file.directory)
        return outcomes

    def stop(self) -> None:
        """See `Strategy.stop`."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _flush_directories(self, directories: list[Directory]) -> dict[Directory, OSError]:
        outcomes = self._spread([_flusher(directory) for directory in directories])
        failures = {}
        for directory, outcome in zip(directories, outcomes, strict=True):
            if outcome is not None:
                directory.mark_failed()
                failures[directory] = outcome
        if failures:
            self._on_failure()
        return failures

    def _spread(self, calls: Sequence[Callable[[], None]]) -> list[Outcome]:
        """Run the calls on all threads; which runs first is not defined."""
        outcomes: list[Outcome] = [None] * len(calls)

        def run(start: int) -> None:
            for at in range(start, len(calls), width):
                try:
                    calls[at]()
                except OSError as error:
                    outcomes[at] = error

        width = min(self._threads, len(calls))
        if width > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads - 1, "hilum-flush")
        waiting = [self._pool.submit(run, start) for start in range(1, width) if self._pool]
        try:
            if calls:
                run(0)
        finally:
            wait(waiting)  # nothing is discarded while another thread writes it
        for future in waiting:
            future.result()
        return outcomes


def _flusher(directory: Directory) -> Callable[[], None]:
    def flush() -> None:
        if directory.failed:
            raise OSError(errno.EIO, f"flushing {directory.path} failed before")
        posix.fsync_directory(directory.path)

    return flush


def _to_flush(directory: Directory) -> Iterable[Directory]:
    """The folder itself, whose entry is new, and the parent of each that is not durable yet."""
    yield directory
    for at in unflushed(directory):
        if at.parent is not None:
            yield at.parent


def _first_failure(directory: Directory, failures: dict[Directory, OSError]) -> Outcome:
    if not failures:
        return None
    return next((failures[at] for at in _to_flush(directory) if at in failures), None)


def _mark_durable(directory: Directory) -> None:
    for at in unflushed(directory):
        at.durable = True


class Syncfs:
    """Flush the whole file system once all names exist; its error fails the whole batch.

    The descriptor is held from the start, so an error of write-back that happened at any time
    since is reported by the next flush. That flush may be another batch's: from then on, every
    file that was being written at the time is flushed and asked by itself.

    Args:
        path: a folder on the file system.
        fsync: flushes such files.
        on_failure: called when a flush failed; makes the files begun before `suspect`.
    """

    name = "syncfs"

    def __init__(self, path: str, fsync: Fsync, on_failure: Callable[[], None]) -> None:
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._fsync = fsync
        self._on_failure = on_failure

    def flush(self, batch: Sequence[Flushable]) -> list[Outcome]:
        """See `Strategy.flush`."""
        suspects = [at for at, file in enumerate(batch) if file.suspect]
        outcomes = [self._put(file) if not file.suspect else None for file in batch]
        written = [
            at for at, file in enumerate(batch) if outcomes[at] is None and at not in suspects
        ]
        if written:
            self._sync([batch[at] for at in written], written, outcomes)
        if suspects:
            asked = self._fsync.flush([batch[at] for at in suspects])
            for at, outcome in zip(suspects, asked, strict=True):
                outcomes[at] = outcome
        return outcomes

    def works(self) -> bool:
        """Whether the call is possible: a sandbox may forbid it."""
        try:
            posix.syncfs(self._fd)
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """See `Strategy.stop`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @staticmethod
    def _put(file: Flushable) -> Outcome:
        try:
            file.put()
            if file.directory.failed:
                raise OSError(errno.EIO, f"flushing {file.directory.path} failed before")
            file.close()
        except OSError as error:
            return error
        return None

    def _sync(self, files: list[Flushable], at: list[int], outcomes: list[Outcome]) -> None:
        try:
            posix.syncfs(self._fd)
        except OSError as error:
            for place, file in zip(at, files, strict=True):
                outcomes[place] = error
                for directory in unflushed(file.directory):
                    directory.mark_failed()
            self._on_failure()
        else:
            for file in files:
                _mark_durable(file.directory)


class Auto:
    """Choose for each batch what was faster for such batches lately.

    For every size of batch (1, 2 to 3, 4 to 7, …, of small or of large objects) the last five
    times per object are kept for both, and their medians are compared; the slower one gets one
    batch in 32, so that a change of the disk or of its other users is noticed. One object is no
    exception: in a new study it needs its file and three folders flushed, which is more than one
    syncfs on an idle disk.

    Args:
        fsync: flushes files singly.
        syncfs: flushes the file system.
        timer: seconds; only differences count.
    """

    name = "auto"

    def __init__(
        self, fsync: Strategy, syncfs: Strategy, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self._fsync = fsync
        self._syncfs = syncfs
        self._timer = timer
        self._kinds: dict[tuple[int, bool], _Kind] = {}

    def flush(self, batch: Sequence[Flushable]) -> list[Outcome]:
        """See `Strategy.flush`."""
        large = sum(file.length for file in batch) > _LARGE * len(batch)
        kind = self._kinds.setdefault((len(batch).bit_length(), large), _Kind())
        by_file = kind.prefers_fsync()
        start = self._timer()
        outcomes = (self._fsync if by_file else self._syncfs).flush(batch)
        if batch and not any(outcomes):
            kind.took(by_file, (self._timer() - start) / len(batch))
        return outcomes

    def stop(self) -> None:
        """See `Strategy.stop`."""
        self._fsync.stop()
        self._syncfs.stop()


class _Kind:
    """What was measured for one kind of batch."""

    def __init__(self) -> None:
        self._batches = 0
        self._fsync: deque[float] = deque(maxlen=_SAMPLES)
        self._syncfs: deque[float] = deque(maxlen=_SAMPLES)

    def prefers_fsync(self) -> bool:
        """Which of both is next: the faster one, or the other one because it is its turn."""
        self._batches += 1
        if min(len(self._fsync), len(self._syncfs)) < _FIRST_SAMPLES:
            return self._batches % 2 == 0  # in turn, even if one of them always fails
        faster = _median(self._fsync) < _median(self._syncfs)
        return faster != (self._batches % _EXPLORE_EVERY == 0)

    def took(self, by_file: bool, seconds: float) -> None:
        """Remember one measurement."""
        (self._fsync if by_file else self._syncfs).append(seconds)


def _median(times: Collection[float]) -> float:
    return sorted(times)[len(times) // 2]


def make_strategy(name: str, path: str, on_failure: Callable[[], None]) -> Strategy:
    """The strategy of a name: ``fsync``, ``syncfs`` or ``auto``.

    Where syncfs does not exist, fails or does not report errors, all three are ``fsync``.

    Args:
        name: from the configuration.
        path: a folder on the file system of the objects.
        on_failure: see `Fsync` and `Syncfs`.

    Raises:
        ValueError: there is no strategy of that name.
    """
    if name not in ("fsync", "syncfs", "auto"):
        raise ValueError(f"flush strategy {name!r} is unknown; use auto, fsync or syncfs")
    fsync = Fsync(on_failure)
    if name == "fsync" or not posix.syncfs_reports_errors(path):
        return fsync
    syncfs = Syncfs(path, fsync, on_failure)
    if not syncfs.works():
        syncfs.stop()
        return fsync
    return syncfs if name == "syncfs" else Auto(fsync, syncfs)
