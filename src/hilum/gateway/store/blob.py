"""One object on its way to durability: first in memory, then in a file under its final name, or
in the spool.

A blob is used by one thread at a time. `keep` and `place` touch no file and may run on the event
loop; everything else may block.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from hilum.gateway.store import posix
from hilum.gateway.store.buckets import Bucket
from hilum.gateway.store.directories import Directory
from hilum.gateway.store.file_meta import HEADER_MAXIMUM, ObjectMeta, encode_header
from hilum.gateway.store.layout import OBJECTS, object_directory, object_name, owner_folder

if TYPE_CHECKING:
    from hilum.gateway.store.blobs import BlobStore

__all__ = ["SPILL", "Blob"]

# Small reports and single slices of old scanners stay whole in memory; 64 KiB for each
# association is what a thousand of them may cost.
SPILL = 64 * 1024
# Begun while the object is handed on: of half a megabyte little is left for the last flush.
_WRITEBACK_STEP = 128 << 10

_log = logging.getLogger(__name__)


class _State(Enum):
    RECEIVING = "is being received"
    SEALED = "is sealed"
    COMMITTED = "is committed"  # durable, but whether its row is, is not known here
    ENDED = "is settled or discarded"


class Blob:
    """One object on its way; made by `BlobStore.begin`.

    Attributes:
        meta: its header's facts; the caller may correct them until `seal`, which adds length,
            digest and completeness.
        path: of its file or place in the spool, relative to the data directory, or None before
            there is one.
        length: bytes of the data set so far.
    """

    __slots__ = (
        "_bucket",
        "_directory",
        "_epoch",
        "_fd",
        "_full_path",
        "_hash",
        "_header",
        "_own_path",
        "_parts",
        "_place",
        "_spooled",
        "_started",
        "_state",
        "_store",
        "length",
        "meta",
        "path",
    )

    def __init__(self, store: BlobStore, meta: ObjectMeta) -> None:
        self.meta = meta
        self.path: str | None = None
        self.length = 0
        self._store = store
        self._state = _State.RECEIVING
        self._place = ("", "")
        self._parts: list[bytes] = []
        self._hash = xxhash.xxh3_128()
        self._header = b""
        self._fd = -1
        self._full_path = ""
        # Write-back begins behind the first page: seal writes that one again.
        self._started = HEADER_MAXIMUM
        self._bucket: Bucket | None = None
        self._directory: Directory | None = None
        self._epoch = 0
        self._own_path = ""
        self._spooled = False

    @property
    def directory(self) -> Directory:
        """The folder of its file, once there is one."""
        assert self._directory is not None
        return self._directory

    @property
    def bucket(self) -> str | None:
        """The name of the bucket of its file, or None before there is one."""
        return None if self._bucket is None else self._bucket.name

    @property
    def suspect(self) -> bool:
        """A flush failed while its file was open: the error may have been its own."""
        return self._fd >= 0 and self._epoch != self._store.epoch

    @property
    def data_offset(self) -> int:
        """Where in its file the data set begins; once it is sealed."""
        return len(self._header)

    def keep(self, data: bytes) -> None:
        """Add bytes in memory; the caller goes over to `write` before there are `SPILL`."""
        self._expect(_State.RECEIVING)
        if self.path is not None:
            raise ValueError("the blob has a file already; use write")
        self._parts.append(data)
        self.length += len(data)

    def place(self, study_uid: str, series_uid: str) -> None:
        """Say which study and series its folders are named after; too late once it has a file."""
        self._place = (study_uid, series_uid)

    def open(self) -> None:
        """Create its file under its final name, unless there is one.

        Raises:
            OSError: it could not be created; the blob can only be discarded.
        """
        self._expect(_State.RECEIVING, _State.SEALED)
        if self.path is not None:
            return
        # Before the file exists: a flush that fails meanwhile makes it suspect.
        self._epoch = self._store.epoch
        if self._bucket is None:
            self._bucket = self._store.buckets.take()
        folder = owner_folder(self.meta.owner, quarantined=self.meta.quarantined)
        names = (*self._bucket.name.split("/"), *object_directory(folder, *self._place))
        name = object_name(folder, self.meta.sop_instance_uid)
        self._directory, name, self._fd = self._store.create_file(names, name)
        self._full_path = f"{self._directory.path}{os.sep}{name}"
        self.path = "/".join((OBJECTS, *names, name))

    def reserve(self) -> str:
        """Choose the path of the file that it will have when it leaves the spool.

        Raises:
            OSError: no bucket could be announced.
        """
        if self._bucket is None:
            self._bucket = self._store.buckets.take()
        self._own_path = self._store.reserve(self._bucket.name, self.meta, *self._place, ours=True)
        return self._own_path

    @property
    def content(self) -> Sequence[bytes]:
        """File meta and data set of a sealed object that is in memory."""
        return [self._header, *self._parts]

    def spooled(self, path: str) -> None:
        """Note that it lies in the spool; for `BlobStore.commit` only."""
        self.path = path
        self._spooled = True
        self._parts.clear()

    def write(self, views: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append bytes to its file, behind what was kept in memory; create the file when needed.

        The views may be reused afterwards. Write-back begins every 128 KiB.

        Raises:
            OSError: not all was written; the blob can only be discarded.
            InvalidDicom: the header cannot be encoded; the same.
        """
        self._expect(_State.RECEIVING)
        first = not self._header
        if first:
            self._header = encode_header(self.meta)
            self._hash_parts()
        self.open()
        for view in views:
            self._hash.update(view)
        self.length += sum(map(len, views))
        self._append([self._header, *self._parts, *views] if first else views)
        end = len(self._header) + self.length
        if end - self._started >= _WRITEBACK_STEP:
            posix.start_writeback(self._fd, self._started, end - self._started)
            self._started = end

    def _append(self, views: Sequence[bytes | bytearray | memoryview]) -> None:
        posix.write_all(self._fd, views)
        self._parts.clear()

    def _hash_parts(self) -> None:
        for part in self._parts:
            self._hash.update(part)

    def seal(self) -> None:
        """The data set has ended: fix length and digest, and begin to write back the rest.

        A file stays open until its commit, so that an error of write-back cannot be missed. When
        the store has too many open, this one is flushed now instead.

        Raises:
            OSError: the file could not be finished; the blob can only be discarded.
            InvalidDicom: the header cannot be encoded; the same.
        """
        self._expect(_State.RECEIVING)
        if self.path is not None and not self._header:
            self.write(())
        if self.path is None:
            self._hash_parts()
        self.meta.length = self.length
        self.meta.digest = self._hash.digest()
        self.meta.complete = True
        header = encode_header(self.meta)
        if self.path is not None:
            self._finish_file(header)
        self._header = header
        self._state = _State.SEALED

    def _finish_file(self, header: bytes) -> None:
        if len(header) != len(self._header):
            raise ValueError("a UID or an AE title was changed after the header was written")
        posix.write_at(self._fd, header, 0)
        if self._store.crowded:
            self.sync()
        else:
            posix.start_writeback(self._fd, 0, len(header) + self.length)

    def put(self) -> None:
        """Its file exists, with all bytes handed to the kernel; for strategies only.

        Raises:
            OSError: not all was written.
        """
        if self.path is None:
            self.open()
            self._append([self._header, *self._parts])

    def sync(self) -> None:
        """`put`, then flush the file's bytes and close it; for strategies only.

        Raises:
            OSError: the bytes are not durable, and asking again would prove nothing.
        """
        self.put()
        if self._fd < 0:
            return
        try:
            posix.data_sync(self._fd)
        finally:
            self.close()

    def close(self) -> None:
        """Close its file; for strategies only.

        Raises:
            OSError: what was written before failed; the file is closed nevertheless.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._store.close_file(fd)

    def committed(self) -> None:
        """Note that it is durable; for `BlobStore.commit` only."""
        self._expect(_State.SEALED)
        self._state = _State.COMMITTED

    @property
    def sealed(self) -> bool:
        """Whether it can be committed."""
        return self._state is _State.SEALED

    def settle(self) -> None:
        """Its row is durable: the file is the index's from now on, not ours to remove."""
        self._expect(_State.COMMITTED)
        if self._spooled and self.path is not None:
            self._store.spool.landed(self.path)
        self._end()

    def discard(self) -> None:
        """Remove its file, and folders that are empty then; without effect once it has ended.

        After a commit too, when its row could not be written. The removal itself is not flushed
        until its bucket closes, and what lies in the spool goes with its segment: after a power
        cut the object may be back, without a row.
        """
        if self._state is _State.ENDED:
            return
        self._parts.clear()
        with contextlib.suppress(OSError):
            self.close()
        if self._spooled and self.path is not None:
            self._store.spool.landed(self.path)
        elif self._own_path:
            self._store.spool.release(self._own_path)
        elif self.path is not None:
            try:
                Path(self._full_path).unlink(missing_ok=True)
            except OSError:
                _log.warning("discarded object %s could not be removed", self.path, exc_info=True)
        if self._bucket is not None:
            self._store.tidy(self._directory, self._bucket)
        self._end()

    def _end(self) -> None:
        self._state = _State.ENDED
        if self._bucket is not None:
            self._store.buckets.release(self._bucket)

    def _expect(self, *states: _State) -> None:
        if self._state not in states:
            raise ValueError(f"the blob {self._state.value}")
