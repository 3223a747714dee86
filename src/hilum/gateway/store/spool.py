"""The spool: small objects one after another in segments, until each gets a file of its own.

Creating a file and flushing it costs several times what its 10 KB do. So the small objects of a
batch are appended to a *segment* with one write and made durable with one flush; the name of the
segment has been durable since its creation. Each lies there as in a file of its own: file meta
first, with owner, length and digest. `mover.py` gives them their files when there is time.

What keeps this safe:

- A segment is appended to by one process, only behind what was flushed. After a failed write or
  flush nothing more goes into it.
- It is removed when every object in it has its own file, flushed, and a row that says so; or was
  refused, discarded or removed.
- An object that is removed while it lies here is marked so in its file meta, so that nobody who
  reads the segment alone (a start after a crash, a rebuilt index) brings it back.
- The name of the file that an object will have is chosen when it is appended, and nobody else
  gets it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hilum.errors import InvalidDicom
from hilum.gateway.store import posix
from hilum.gateway.store.file_meta import HEADER_MAXIMUM, encode_header, parse_header
from hilum.gateway.store.layout import SPOOL, is_segment, spooled, spooled_path

__all__ = ["SEGMENT_BYTES", "SEGMENT_OBJECTS", "Segment", "Spool"]

# What one move takes: some 100 ms, of which a gateway that stops waits for the last one.
SEGMENT_OBJECTS = 512
SEGMENT_BYTES = 8 << 20
# Written ahead as zeros: what is put over them is flushed without the file system's journal, in
# less than half the time. More would be waste where one small object comes an hour.
_AHEAD = 1 << 20
_ZEROS = bytes(_AHEAD)

Parts = Sequence[bytes | bytearray | memoryview]


class Segment:
    """A file of the spool.

    Attributes:
        name: 16 hexadecimal digits, unlike any other's ever.
        size: bytes that were appended.
        filled: bytes of the file, zeros ahead included.
        objects: how many were appended, or found in it.
        in_flight: how many of them have not landed.
        own_paths: of the files that its objects will have.
        sealed: it takes no more.
    """

    __slots__ = ("fd", "filled", "in_flight", "name", "objects", "own_paths", "sealed", "size")

    def __init__(self, name: str, fd: int = -1) -> None:
        self.name = name
        self.fd = fd
        self.size = self.filled = 0
        self.objects = 0
        self.in_flight = 0
        self.own_paths: list[str] = []
        self.sealed = fd < 0


class Spool:
    """The segments of one store. Safe to use from any thread; one appends at a time.

    Args:
        objects: absolute path of the folder of all objects, on whose file system it lies.
        limit: objects that may lie here; more get their own files at once. 0: none may.
    """

    def __init__(self, objects: str, limit: int) -> None:
        self._folder = f"{objects}{os.sep}{SPOOL}"
        self._limit = limit
        self._current: Segment | None = None
        self._segments: dict[str, Segment] = {}
        self._kept: set[str] = set()
        self._reserved: set[str] = set()
        self._withheld: set[str] = set()
        self._appended_at = 0.0
        self._appending = threading.Lock()
        self._counting = threading.Lock()

    # ── storing ─────────────────────────────────────────────────────────────────────────────

    def has_room(self, objects: int) -> bool:
        """Whether so many more may lie here."""
        return self.waiting + objects <= self._limit

    @property
    def waiting(self) -> int:
        """How many objects have no file of their own yet; those refused since count too."""
        with self._counting:
            return sum(segment.objects for segment in self._segments.values())

    def append(self, objects: Sequence[Parts], own_paths: Sequence[str]) -> list[str]:
        """Make objects durable, all of them or none.

        Args:
            objects: file meta and data set of each.
            own_paths: the paths of the files they will have, from `reserve`.

        Returns:
            Their paths. Each is in flight until it has `landed`.

        Raises:
            OSError: what was written is no object of ours.
        """
        with self._appending:
            segment = self._current or self._create()
            offset = segment.size
            paths: list[str] = []
            views: list[bytes | bytearray | memoryview] = []
            for parts, own in zip(objects, own_paths, strict=True):
                paths.append(spooled_path(own, segment.name, offset))
                offset += sum(map(len, parts))
                views += parts
            try:
                if offset > segment.filled:
                    self._fill_ahead(segment, offset)
                posix.write_all(segment.fd, views)
                posix.data_sync(segment.fd)
            except BaseException:
                # What came of it is not known, and a second flush would prove nothing.
                self._seal(segment)
                raise
            segment.size = offset
            with self._counting:
                segment.objects += len(paths)
                segment.in_flight += len(paths)
                segment.own_paths += own_paths
            self._appended_at = time.monotonic()
            if segment.objects >= SEGMENT_OBJECTS or segment.size >= SEGMENT_BYTES:
                self._seal(segment)
        return paths

    @staticmethod
    def _fill_ahead(segment: Segment, needed: int) -> None:
        while segment.filled < needed:
            os.lseek(segment.fd, segment.filled, os.SEEK_SET)
            segment.filled += posix.write_all(segment.fd, [_ZEROS])
        os.lseek(segment.fd, segment.size, os.SEEK_SET)

    def _create(self) -> Segment:
        """A new segment; its name is durable on return."""
        if not Path(self._folder).is_dir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._folder, 0o750)  # noqa: PTH102 - as in directories.py
            posix.fsync_directory(str(Path(self._folder).parent))
        # Told by the clock: a path that someone kept must never come to mean another object.
        name = f"{time.time_ns() // 1000:016x}"
        fd = posix.create_file(self._full(name))
        try:
            posix.fsync_directory(self._folder)
        except BaseException:
            os.close(fd)
            raise
        segment = self._current = Segment(name, fd)
        with self._counting:
            self._segments[name] = segment
        return segment

    def _seal(self, segment: Segment) -> None:
        if self._current is segment:
            self._current = None
        segment.sealed = True
        fd, segment.fd = segment.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # everything in it was flushed before
                os.close(fd)

    def seal_idle(self, seconds: float) -> None:
        """Seal the segment that is being filled when nothing was added for so long."""
        if self._current is None or time.monotonic() - self._appended_at < seconds:
            return
        with self._appending:
            if self._current is not None:
                self._seal(self._current)

    def close(self) -> None:
        """Seal what is being filled; its objects are moved after the next start."""
        with self._appending:
            if self._current is not None:
                self._seal(self._current)

    # ── names ───────────────────────────────────────────────────────────────────────────────

    def reserve(self, own_path: str) -> bool:
        """Keep the name of a file for an object of the spool; False when another has it."""
        with self._counting:
            if self.is_reserved(own_path):
                return False
            self._reserved.add(own_path)
            return True

    def is_reserved(self, own_path: str) -> bool:
        """Whether an object of the spool will have a file of that name, or nobody may."""
        return own_path in self._reserved or own_path in self._withheld

    def withhold(self, own_paths: Iterable[str]) -> None:
        """Let nobody have the names of these files, which are about to be deleted."""
        with self._counting:
            self._withheld.update(own_paths)

    def give_free(self, own_paths: Iterable[str]) -> None:
        """They are deleted, and will not be deleted once more."""
        with self._counting:
            self._withheld.difference_update(own_paths)

    def release(self, own_path: str) -> None:
        """A name is not kept any more; those of what was appended go with their segment."""
        with self._counting:
            self._reserved.discard(own_path)

    # ── what becomes of an object ───────────────────────────────────────────────────────────

    def landed(self, path: str) -> None:
        """Its row is durable, or it gets none: it is not in flight any more."""
        place = spooled(path)
        segment = self._segments.get(place.segment) if place else None
        if segment is not None:
            with self._counting:
                segment.in_flight -= 1

    def mark_removed(self, segment: str, offset: int) -> None:
        """Make an object one that nobody will take for stored, durably.

        Without effect where it is not there any more.

        Raises:
            OSError: it may still be taken for one.
        """
        try:
            fd = os.open(self._full(segment), os.O_RDWR | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            try:
                meta, length = parse_header(os.read(fd, HEADER_MAXIMUM))
            except InvalidDicom:
                return
            meta.complete = False  # its length stays, so that a reader finds the next one
            header = encode_header(meta)
            assert len(header) == length
            posix.write_at(fd, header, offset)
            posix.data_sync(fd)
        finally:
            os.close(fd)

    # ── for the mover and the start ─────────────────────────────────────────────────────────

    def on_disk(self) -> list[str]:
        """The names of all segments, oldest first."""
        try:
            return sorted(name[:-4] for name in os.listdir(self._folder) if is_segment(name))
        except FileNotFoundError:
            return []

    def adopt(self, name: str, own_paths: Sequence[str]) -> None:
        """Take over a segment that an earlier process filled.

        Args:
            name: of the segment.
            own_paths: of the files that those of its objects will have that have rows.
        """
        segment = Segment(name)
        segment.objects = len(own_paths)
        segment.own_paths += own_paths
        with self._counting:
            self._segments[name] = segment
            self._reserved.update(own_paths)

    def keep(self, name: str) -> None:
        """Never remove a segment: it has something that a person has to look at."""
        self._kept.add(name)
        with self._counting:
            self._segments.pop(name, None)

    def movable(self) -> Iterator[Segment]:
        """The segments that are sealed and have nothing in flight, oldest first."""
        with self._counting:
            segments = list(self._segments.values())
        for segment in segments:
            if segment.sealed and segment.in_flight == 0:
                yield segment

    def remove(self, segment: Segment) -> None:
        """Delete a segment that nobody needs any more.

        Raises:
            OSError: it may still be there.
        """
        Path(self._full(segment.name)).unlink(missing_ok=True)
        with self._counting:
            self._segments.pop(segment.name, None)
            self._reserved.difference_update(segment.own_paths)
        posix.fsync_directory(self._folder)

    def _full(self, name: str) -> str:
        return f"{self._folder}{os.sep}{name}.seg"
