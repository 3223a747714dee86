"""Buckets: one day's objects in portions of 10,000, so that a start looks at few of them.

A bucket is announced before its first file exists and reported closed when nothing in it is in
flight any more. Whoever keeps a durable list of the open ones knows, after a crash, every folder
in which a file without a row can be.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from hilum.gateway.store.layout import bucket_name

__all__ = ["BUCKET_OBJECTS", "Bucket", "Buckets"]

# Reading the headers of 10,000 files takes a second or two: that is what a start may cost.
BUCKET_OBJECTS = 10_000

_log = logging.getLogger(__name__)


def _day(time: float) -> int:
    return int(time // 86_400)


class Bucket:
    """A bucket that is open.

    Attributes:
        name: ``2026/11/21-003``.
        day: its day, counted from 1970-01-01 UTC.
        opened: how many objects were begun in it.
        in_flight: how many of them are neither settled nor discarded.
        retired: it takes no more objects.
        removed_from: folders from which files were removed and not flushed since.
    """

    __slots__ = ("day", "in_flight", "name", "opened", "removed_from", "retired")

    def __init__(self, name: str, day: int) -> None:
        self.name = name
        self.day = day
        self.opened = 0
        self.in_flight = 0
        self.retired = False
        self.removed_from: set[str] = set()


class Buckets:
    """Chooses the bucket of each new object; safe to use from any thread.

    Args:
        objects: absolute path of the folder of all buckets.
        clock: seconds since 1970.
        on_open: called with the name before the first file is created; must not return before
            that is durable. It may be called twice for a bucket that got no file. It runs in the
            thread that needs the bucket, while the others that need one wait: it must not depend
            on the thread that commits.
        on_close: called with the bucket when it is retired and nothing in it is in flight, under
            the same condition.
        limit: objects in a bucket.
    """

    def __init__(
        self,
        objects: str,
        clock: Callable[[], float],
        on_open: Callable[[str], None],
        on_close: Callable[[Bucket], None],
        limit: int = BUCKET_OBJECTS,
    ) -> None:
        self._objects = Path(objects)
        self._clock = clock
        self._on_open = on_open
        self._on_close = on_close
        self._limit = limit
        self._current: Bucket | None = None
        self._open: dict[str, Bucket] = {}
        self._last: tuple[str, int] = ("", 0)
        # Choosing may wait for a database (on_open); counting must not, so it has its own lock.
        self._choosing = threading.Lock()
        self._counting = threading.Lock()

    @property
    def open_names(self) -> list[str]:
        """Names of all buckets that are open, the newest last."""
        with self._counting:
            return list(self._open)

    def take(self) -> Bucket:
        """The bucket for one more object, counted as in flight.

        Raises:
            OSError: a new bucket was needed and could not be announced; the next call tries again.
        """
        with self._choosing:
            bucket = self._current
            if bucket is None or not self._count_in(bucket):
                self.retire(bucket)
                # Midnight may pass while the new bucket is announced: it takes this one anyway.
                bucket = self._current = self._open_next()
                with self._counting:
                    bucket.opened += 1
                    bucket.in_flight += 1
            return bucket

    def current(self) -> str:
        """The name of the bucket that the next object would go to."""
        bucket = self.take()
        with self._counting:
            bucket.opened -= 1
        self.release(bucket)
        return bucket.name

    def _count_in(self, bucket: Bucket) -> bool:
        """Count one more object, unless the bucket is full, retired, or of another day."""
        today = _day(self._clock())
        with self._counting:
            if bucket.retired or bucket.opened >= self._limit or bucket.day != today:
                return False
            bucket.opened += 1
            bucket.in_flight += 1
            return True

    def _open_next(self) -> Bucket:
        now = self._clock()
        bucket = Bucket(bucket_name(now, self._next_number(now)), _day(now))
        try:
            self._on_open(bucket.name)
        except Exception as error:
            self._current = None
            raise OSError(
                errno.EIO, f"bucket {bucket.name} could not be announced: {error}"
            ) from error
        with self._counting:
            self._open[bucket.name] = bucket
        self._last = (bucket.name[:10], int(bucket.name[11:]))
        return bucket

    def _next_number(self, now: float) -> int:
        """One more than the highest number of this day, on disk or given out by us."""
        day = bucket_name(now, 1)[:10]
        highest = self._last[1] if self._last[0] == day else 0
        try:
            names = os.listdir(self._objects / day[:7])
        except FileNotFoundError:
            names = []
        prefix = day[8:] + "-"
        numbers = [
            int(name[3:]) for name in names if name.startswith(prefix) and name[3:].isdecimal()
        ]
        return max([highest, *numbers]) + 1

    def retire(self, bucket: Bucket | None) -> None:
        """Give a bucket no more objects, and close it when nothing in it is in flight."""
        if bucket is not None:
            with self._counting:
                bucket.retired = True
            self._close_if_done(bucket)

    def retire_current(self) -> None:
        """Retire the bucket that is being filled."""
        self.retire(self._current)

    def release(self, bucket: Bucket) -> None:
        """One object in a bucket is no longer in flight."""
        with self._counting:
            bucket.in_flight -= 1
        if bucket.retired:
            self._close_if_done(bucket)

    def _close_if_done(self, bucket: Bucket) -> None:
        with self._counting:
            if bucket.in_flight or self._open.pop(bucket.name, None) is None:
                return
        try:
            self._on_close(bucket)
        except Exception:
            # It stays in the list of open ones: the next start looks at it once more.
            _log.warning("bucket %s could not be reported closed", bucket.name, exc_info=True)
