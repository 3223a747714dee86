"""Files of their own for the objects of the spool, made when there is time.

A segment at a time: its objects are copied to the files whose names were chosen for them, the
files and their folders flushed, then the rows are told; when no row points into the segment any
more it is deleted. Interrupted anywhere, it is done once more: a file that is there already and
whole is taken, one that is not whole is made anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import select

from hilum.errors import StorageFailed
from hilum.gateway.store import posix, scan, schema
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.directories import Directory
from hilum.gateway.store.flush import make_strategy
from hilum.gateway.store.layout import another_name, record_path, spooled
from hilum.gateway.store.scan import Found
from hilum.gateway.store.spool import Segment
from hilum.gateway.store.statements import Statements

__all__ = ["Mover"]

log = logging.getLogger("hilum.store")

# One transaction, some 2 ms; and so many files are open at once.
PIECE = 128
# A segment that is being filled is moved when nothing came for so long.
QUIET = 1.0
# How long the committer must have been idle, and how often that is asked.
_PAUSE = 0.02


class Copy:
    """The file that an object of the spool gets; see `flush.Flushable`.

    Attributes:
        row_id: of the object's row.
        row_path: as the row says it.
        path: of the file, relative to the data directory.
    """

    def __init__(
        self, blobs: BlobStore, row_id: int, row_path: str, own: str, found: Found, data: bytes
    ) -> None:
        self.row_id, self.row_path, self.path = row_id, row_path, own
        self.length = len(data)
        self._blobs, self._found, self._data = blobs, found, data
        self._directory: Directory | None = None
        self._fd = -1
        self._epoch = 0

    @property
    def directory(self) -> Directory:
        """See `Flushable`."""
        assert self._directory is not None
        return self._directory

    @property
    def suspect(self) -> bool:
        """See `Flushable`."""
        return self._fd >= 0 and self._epoch != self._blobs.epoch

    def put(self) -> None:
        """See `Flushable`."""
        while self._directory is None:
            self._epoch = self._blobs.epoch
            try:
                self._directory, self._fd = self._blobs.create_own(self.path)
            except FileExistsError:
                self._take_what_is_there()
        if self._data:
            posix.write_all(self._fd, [self._data])
            self._data = b""

    def _take_what_is_there(self) -> None:
        """The name is taken, by an attempt that was interrupted or by someone else's file."""
        there = scan.examine(self._blobs.root, self.path)
        if there.meta is not None and there.problem is None:
            if there.meta == self._found.meta:
                self._directory, self._fd = self._blobs.reopen_own(self.path)
                self._data = b""
                return
            folder, _, name = self.path.rpartition("/")
            self.path = f"{folder}/{another_name(name)}"
            return
        Path(self._blobs.full_path(self.path)).unlink(missing_ok=True)

    def sync(self) -> None:
        """See `Flushable`."""
        self.put()
        if self._fd >= 0:
            try:
                posix.data_sync(self._fd)
            finally:
                self.close()

    def close(self) -> None:
        """See `Flushable`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._blobs.close_file(fd)


class Mover:
    """Empties the spool.

    Args:
        blobs: the store.
        database: with the rows.
        busy: whether objects are being stored at this moment; the mover waits then.
        strategy: how its files become durable; see `make_strategy`.
    """

    def __init__(
        self,
        blobs: BlobStore,
        database: Database,
        *,
        busy: Callable[[], bool] = lambda: False,
        strategy: str = "syncfs",
    ) -> None:
        self._blobs = blobs
        self._database = database
        self._busy = busy
        self._strategy = make_strategy(strategy, blobs.objects, blobs.flush_failed)
        self._move = Statements(database.engine.dialect).move_instance
        self._stopping = threading.Event()
        self._running = threading.Lock()

    def run(self, quiet: float = QUIET) -> int:
        """Move what can be moved; returns how many objects got their files.

        Args:
            quiet: seconds for which nothing must have come into the segment that is being filled.

        Raises:
            StorageFailed: files or rows could not be written; what was not moved stays.
        """
        moved = 0
        spool = self._blobs.spool
        spool.seal_idle(quiet)
        with self._running:
            for segment in spool.movable():
                if self._stopping.is_set():
                    break
                try:
                    moved += self._empty(segment)
                except OSError as error:
                    raise StorageFailed(f"objects could not leave the spool: {error}") from error
        return moved

    def close(self) -> None:
        """Wait for `run` to come to a stop, and free what it used; may be called from any thread."""
        self._stopping.set()
        with self._running:
            self._strategy.stop()

    def _empty(self, segment: Segment) -> int:
        spool, moved = self._blobs.spool, 0
        found = list(scan.scan_segment(self._blobs.root, segment.name))
        rows = self._rows(segment.name, found)
        here = [file for file in found if file.path in rows]
        for bad in (file for file in here if file.problem is not None):
            log.error("%s: %s", rows[bad.path][1], bad.problem)
            spool.keep(segment.name)
        whole = [file for file in here if file.problem is None]
        for start in range(0, len(whole), PIECE):
            if not self._wait_until_idle():
                return moved
            piece = whole[start : start + PIECE]
            moved += self._move_piece([self._copy(file, *rows[file.path]) for file in piece])
        if len(whole) == len(here):
            spool.remove(segment)
        return moved

    def _rows(self, segment: str, found: Sequence[Found]) -> dict[str, tuple[int, str]]:
        """Id and path of the rows that point into a segment, by the record's path."""
        table = schema.instance
        rows = {}
        for start in range(0, len(found), PIECE):
            metas = [file.meta for file in found[start : start + PIECE]]
            uids = [meta.sop_instance_uid for meta in metas if meta is not None]
            statement = select(table.c.id, table.c.path).where(table.c.sop_uid.in_(uids))
            with self._database.read() as connection:
                for row in connection.execute(statement):
                    place = spooled(row.path)
                    if place is not None and place.segment == segment:
                        rows[record_path(place.segment, place.offset)] = (row.id, row.path)
        return rows

    def _copy(self, found: Found, row_id: int, row_path: str) -> Copy:
        place = spooled(row_path)
        assert place is not None
        assert found.meta is not None
        file, start = self._blobs.open_file(row_path)
        with file:
            file.seek(start)
            data = file.read(found.offset + found.meta.length)
        return Copy(self._blobs, row_id, row_path, place.own, found, data)

    def _move_piece(self, copies: Sequence[Copy]) -> int:
        outcomes = self._strategy.flush(copies)
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        good = [c for c, outcome in zip(copies, outcomes, strict=True) if outcome is None]
        for copy in copies:
            copy.close()
        lost = self._tell_rows(good)
        # They were removed meanwhile, and with them whatever lay at the names of that time.
        self._blobs.remove([copy.path for copy in lost])
        if failure is not None:
            raise failure
        return len(good) - len(lost)

    def _tell_rows(self, copies: Sequence[Copy]) -> list[Copy]:
        """Point the rows at the files; returns the copies whose rows are gone."""
        if not copies:
            return []
        with self._database.write() as connection:
            told = [
                connection.exec_driver_sql(
                    self._move, (copy.path, copy.row_id, copy.row_path)
                ).rowcount
                for copy in copies
            ]
        return [copy for copy, count in zip(copies, told, strict=True) if not count]

    def _wait_until_idle(self) -> bool:
        """False when it is time to stop."""
        while self._busy():
            if self._stopping.wait(_PAUSE):
                return False
        return not self._stopping.is_set()
