"""Objects as files: begun, made durable in batches, read back, removed.

One object's way::

    blob = store.begin(meta)       no file yet
    blob.keep(data)                in memory, up to SPILL
    blob.place(study, series)      as soon as the header has been scanned
    blob.write(views)              beyond SPILL: into its file, under its final name
    blob.seal()                    length and digest are known
    store.commit([blob, …])        durable, or discarded and an error
    blob.settle()                  its row is durable; or blob.discard()

An object that fits in memory goes to the spool in `commit` while that has room, together with the
others of its batch; else it gets its file there, in one system call.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hilum.errors import StorageFailed, StoreUnavailable
from hilum.gateway.store import posix, scan
from hilum.gateway.store.blob import SPILL, Blob
from hilum.gateway.store.buckets import BUCKET_OBJECTS, Bucket, Buckets
from hilum.gateway.store.directories import Directories, Directory
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.flush import Strategy, make_strategy
from hilum.gateway.store.layout import (
    OBJECTS,
    another_name,
    is_bucket,
    object_directory,
    object_name,
    owner_folder,
    parse_path,
    spooled,
)
from hilum.gateway.store.scan import Found, Problem
from hilum.gateway.store.spool import Spool

__all__ = ["MARKER", "SPILL", "Blob", "BlobStore", "Found", "Problem"]

MARKER = "hilum-store.json"
FORMAT = 1
_ROOM_SECONDS = 0.01  # how old the answer of has_room may be: a fast disk takes 10 MB meanwhile
# A random suffix of 32 bits is taken once in four milliards; only a broken disk fails so often.
_NAME_ATTEMPTS = 16


def _nothing(_bucket: str) -> None:
    """Nobody keeps a list of open buckets."""


class BlobStore:
    """The objects of one data directory; made by `BlobStore.open`.

    Methods may be called from any thread; batches are committed one after another.

    Attributes:
        root: absolute path of the data directory.
        objects: absolute path of the folder of all objects.
        id: from the marker.
        buckets: chooses the bucket of each object.
        spool: where small objects wait for files of their own.
        epoch: how many flushes have failed.
    """

    def __init__(
        self,
        root: str,
        store_id: uuid.UUID,
        strategy: str | Strategy,
        clock: Callable[[], float],
        on_open: Callable[[str], None],
        on_close: Callable[[str], None],
        bucket_objects: int,
        spool_objects: int,
    ) -> None:
        self.root = root
        self.id = store_id
        self.epoch = 0
        # It may be a symbolic link to a larger disk; nothing below it may be one.
        self.objects = os.path.realpath(f"{root}{os.sep}{OBJECTS}")
        self._directories = Directories(self.objects)
        self.spool = Spool(self.objects, spool_objects)
        self._report_closed = on_close
        self.buckets = Buckets(self.objects, clock, on_open, self._closed, bucket_objects)
        self._strategy = (
            make_strategy(strategy, self.objects, self.flush_failed)
            if isinstance(strategy, str)
            else strategy
        )
        self._committing = threading.Lock()
        self._counting = threading.Lock()
        self._descriptors = 0
        # Sockets and the database want most of them.
        self._crowd = max(16, posix.descriptor_limit() // 4)
        self._room: tuple[float, posix.FreeSpace] | None = None

    @staticmethod
    def create(root: Path) -> uuid.UUID:
        """Make a data directory, durably, and return the id of the new store.

        Raises:
            StoreUnavailable: there is a store, or objects without a marker.
            OSError: a folder or the marker could not be written.
        """
        objects = root / OBJECTS
        if (root / MARKER).exists() or (objects.is_dir() and any(objects.iterdir())):
            raise StoreUnavailable(f"{root} holds a store already")
        missing = [folder for folder in (objects, root, *root.parents) if not folder.exists()]
        objects.mkdir(mode=0o750, parents=True, exist_ok=True)
        for folder in missing:
            posix.fsync_directory(str(folder.parent))
        store_id = uuid.uuid4()
        content = json.dumps({"id": str(store_id), "format": FORMAT}) + "\n"
        temporary = root / (MARKER + ".new")
        temporary.unlink(missing_ok=True)
        fd = posix.create_file(str(temporary))
        try:
            posix.write_all(fd, [content.encode()])
            posix.data_sync(fd)
        finally:
            os.close(fd)
        temporary.replace(root / MARKER)
        posix.fsync_directory(str(root))
        return store_id

    @classmethod
    def open(
        cls,
        root: Path,
        strategy: str | Strategy = "auto",
        *,
        clock: Callable[[], float] = time.time,
        on_open: Callable[[str], None] = _nothing,
        on_close: Callable[[str], None] = _nothing,
        bucket_objects: int = BUCKET_OBJECTS,
        spool_objects: int = 0,
    ) -> BlobStore:
        """Open a data directory that `create` made.

        Args:
            root: the data directory.
            strategy: how batches become durable: ``auto``, ``fsync``, ``syncfs``, or one's own.
            clock: seconds since 1970; names the buckets.
            on_open: called before the first file of a bucket exists; returns when that is durably
                known. See `Buckets` for the threads it runs in.
            on_close: called when a bucket takes no more and nothing in it is in flight.
            bucket_objects: objects in a bucket.
            spool_objects: small objects that may wait for files of their own; who says more than
                0 has them moved, see `mover.py`.

        Raises:
            StoreUnavailable: the marker is missing, damaged, or of a newer format.
            ValueError: there is no strategy of that name.
        """
        real = os.path.realpath(root)
        store_id = _read_marker(Path(real))
        if not Path(real, OBJECTS).is_dir():
            raise StoreUnavailable(f"{real} has no folder {OBJECTS!r}; is its disk mounted?")
        # The process that made the marker may have been killed before it was flushed.
        posix.fsync_directory(real)
        return cls(
            real, store_id, strategy, clock, on_open, on_close, bucket_objects, spool_objects
        )

    def close(self) -> None:
        """Retire the current bucket and free threads and descriptors; nothing may be in flight."""
        self.buckets.retire_current()
        self.spool.close()
        with self._committing:
            self._strategy.stop()

    @property
    def strategy(self) -> str:
        """The strategy in use, which is ``fsync`` where the one asked for is not possible."""
        return self._strategy.name

    def current_bucket(self) -> str:
        """The bucket that the next object goes to; opens one when needed.

        Raises:
            OSError: it could not be announced.
        """
        return self.buckets.current()

    def begin(self, meta: ObjectMeta) -> Blob:
        """An object whose first bytes are about to come; touches no file."""
        return Blob(self, meta)

    def commit(self, batch: Sequence[Blob]) -> list[OSError | None]:
        """Make sealed objects durable: their bytes, their names, and every folder above them.

        An object that fails is discarded; nothing of it stays.

        Returns:
            For each object None when it is durable, else the error.
        """
        if not all(blob.sealed for blob in batch):
            raise ValueError("only sealed blobs can be committed, and only once")
        small = [blob for blob in batch if blob.path is None]
        if not self.spool.has_room(len(small)):
            small = []
        files = [blob for blob in batch if blob.path is not None] if small else batch
        outcomes: dict[Blob, OSError | None] = {}
        with self._committing:
            try:
                if small:
                    outcomes.update(self._append(small))
                if files:
                    outcomes.update(zip(files, self._strategy.flush(files), strict=True))
            except BaseException:
                for blob in batch:
                    blob.discard()
                raise
        for blob, outcome in outcomes.items():
            if outcome is None:
                blob.committed()
            else:
                blob.discard()
        return [outcomes[blob] for blob in batch]

    def _append(self, small: Sequence[Blob]) -> dict[Blob, OSError | None]:
        """Put objects into the spool."""
        outcomes: dict[Blob, OSError | None] = {}
        own_paths: dict[Blob, str] = {}
        for blob in small:
            try:
                own_paths[blob] = blob.reserve()
            except OSError as error:
                outcomes[blob] = error
        if not own_paths:
            return outcomes
        try:
            contents = [blob.content for blob in own_paths]
            paths = self.spool.append(contents, list(own_paths.values()))
        except OSError as error:
            return outcomes | dict.fromkeys(own_paths, error)
        for blob, path in zip(own_paths, paths, strict=True):
            blob.spooled(path)
        return outcomes | dict.fromkeys(own_paths)

    def reserve(
        self, bucket: str, meta: ObjectMeta, study_uid: str, series_uid: str, *, ours: bool = False
    ) -> str:
        """Choose the path of the file that an object of the spool will have; nobody else gets it.

        Args:
            bucket: the name of a bucket, open or not.
            meta: of the object.
            study_uid: as the data set says it; empty when not known.
            series_uid: the same.
            ours: the bucket was opened since the store was.
        """
        folder = owner_folder(meta.owner, quarantined=meta.quarantined)
        names = "/".join((OBJECTS, bucket, *object_directory(folder, study_uid, series_uid)))
        name = chosen = object_name(folder, meta.sop_instance_uid)
        while True:
            own_path = f"{names}/{chosen}"
            if self.spool.reserve(own_path):
                folder_path = self._own_file(names)
                # A folder of a bucket of our own that we did not make does not exist.
                if (ours and not self._directories.knows(folder_path)) or not os.path.lexists(
                    f"{folder_path}{os.sep}{chosen}"
                ):
                    return own_path
                self.spool.release(own_path)
            chosen = another_name(name)

    def create_own(self, own_path: str) -> tuple[Directory, int]:
        """Create the file of an object of the spool, in its folder.

        Raises:
            FileExistsError: it is there already.
        """
        *names, name = own_path.split("/")[1:]
        directory = self._directories.ensure(names)
        return directory, self._counted(posix.create_file(f"{directory.path}{os.sep}{name}"))

    def reopen_own(self, own_path: str) -> tuple[Directory, int]:
        """Open such a file that is whole already, to flush it."""
        *names, name = own_path.split("/")[1:]
        directory = self._directories.ensure(names)
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        return directory, self._counted(os.open(f"{directory.path}{os.sep}{name}", flags))

    def _counted(self, fd: int) -> int:
        with self._counting:
            self._descriptors += 1
        return fd

    def _own_file(self, own_path: str) -> str:
        return f"{self.objects}{own_path.removeprefix(OBJECTS).replace('/', os.sep)}"

    def has_room(self, reserve_bytes: int, reserve_inodes: int = 0) -> bool:
        """Whether more than a reserve is free on the objects' file system.

        The answer may be some milliseconds old, so it can be asked for every piece of an object.

        Args:
            reserve_bytes: what must stay free.
            reserve_inodes: files that it must still be possible to create.
        """
        now = time.monotonic()
        if self._room is None or now - self._room[0] > _ROOM_SECONDS:
            self._room = (now, posix.free_space(self.objects))
        free = self._room[1]
        return free.bytes > reserve_bytes and (free.inodes is None or free.inodes > reserve_inodes)

    def full_path(self, path: str) -> str:
        """The absolute path of an object's own file, which one in the spool will have.

        Args:
            path: relative to the data directory, as `Blob.path` said it.

        Raises:
            ValueError: it is not the path of an object, or leads outside through a link.
        """
        place = spooled(path)
        own = path if place is None else place.own
        parse_path(own)
        full = self._own_file(own)
        if os.path.realpath(full) != full:
            raise ValueError(f"{path!r} leads through a symbolic link")
        return full

    def open_read(self, path: str) -> tuple[BinaryIO, ObjectMeta]:
        """Open an object at its data set, which reaches to the end of the file.

        Raises:
            NotFound: there is no such file.
            InvalidDicom: its header is not ours or is damaged.
            ValueError: see `full_path`.
        """
        self.full_path(path)
        return scan.open_object(self.root, path)

    def open_file(self, path: str) -> tuple[BinaryIO, int]:
        """Open the file that holds an object, for whoever reads it by offset.

        Returns:
            The file, and where in it the object begins: its data set is `data_offset` bytes
            behind that. It may be followed by other objects, and stays readable when the object
            is moved or removed meanwhile.

        Raises:
            OSError: there is no such file.
            ValueError: see `full_path`.
        """
        self.full_path(path)
        file, start = scan.open_place(self.root, path)
        return file, start or 0

    def verify(self, path: str) -> Problem | None:
        """Read an object from end to end; None when it is whole.

        Raises:
            ValueError: see `full_path`.
        """
        place = spooled(path)
        if place is None or place.own:
            self.full_path(path)
        return scan.examine(self.root, path).problem

    def scan_bucket(self, bucket: str, *, skip: Container[str] = ()) -> Iterator[Found]:
        """Read every file of a bucket and say which are whole.

        Args:
            bucket: its name.
            skip: paths that need not be read, because their rows prove them durable.

        Raises:
            ValueError: it is not the name of a bucket.
        """
        if not is_bucket(bucket):
            raise ValueError(f"{bucket!r} is not the name of a bucket")
        return scan.scan_bucket(self.root, bucket, skip=skip)

    def scan_all(self, *, digest: bool = True) -> Iterator[Found]:
        """Every file of every bucket, oldest bucket first.

        Args:
            digest: whether to read all of each file; else lengths alone are compared.
        """
        for bucket in scan.buckets_on_disk(self.root):
            yield from scan.scan_bucket(self.root, bucket, digest=digest)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects, durably, and folders that are empty then; a missing file is no error.

        What lies in the spool is marked as removed; it may have been moved meanwhile.

        Raises:
            StorageFailed: some may still be there; call again.
            ValueError: a path is not that of an object; nothing was removed.
        """
        found, marked = [], []
        for path in paths:
            place = spooled(path)
            if place is not None:
                marked.append(place)
            if own := _own(path):
                found.append((self.full_path(own), parse_path(own).bucket))
        in_use = set(self.buckets.open_names)
        try:
            for place in marked:
                self.spool.mark_removed(place.segment, place.offset)
            changed = {self._unlink(full, bucket, in_use) for full, bucket in found}
            self._flush_existing(changed)
        except OSError as error:
            raise StorageFailed(f"objects could not be removed: {error}") from error

    def withhold(self, paths: Iterable[str]) -> None:
        """Give the names of objects that are about to be removed to no other, until `give_free`.

        Whoever removes them may have to do it again, after a failure or a crash: what has come in
        between must not lie there.
        """
        self.spool.withhold(filter(None, map(_own, paths)))

    def give_free(self, paths: Iterable[str]) -> None:
        """What was withheld is removed, and that is durably known: the names are anybody's."""
        self.spool.give_free(filter(None, map(_own, paths)))

    def _unlink(self, full: str, bucket: str, in_use: set[str]) -> str:
        """Remove one file; the folder whose entries changed."""
        Path(full).unlink(missing_ok=True)
        stop = self._bucket_path(bucket) if bucket in in_use else self.objects
        return self._directories.remove_empty(str(Path(full).parent), stop)

    def _bucket_path(self, bucket: str) -> str:
        return str(Path(self.objects, *bucket.split("/")))

    def _flush_existing(self, folders: Iterable[str]) -> None:
        """Flush each folder, or the lowest one above it that is still there."""
        flushed = set()
        for folder in folders:
            at = folder
            while at not in flushed:
                try:
                    posix.fsync_directory(at)
                except FileNotFoundError:
                    at = str(Path(at).parent)
                else:
                    flushed.add(at)

    # What blobs and strategies call back.

    @property
    def crowded(self) -> bool:
        """Whether so many files are open that a finished one should not wait for its batch."""
        return self._descriptors > self._crowd

    def create_file(self, names: Sequence[str], name: str) -> tuple[Directory, str, int]:
        """Create a file in a folder below the objects, with another name when that is taken.

        Returns:
            The folder, the name it got, and its descriptor.
        """
        chosen = name
        for _ in range(_NAME_ATTEMPTS):
            if self.spool.is_reserved("/".join((OBJECTS, *names, chosen))):
                chosen = another_name(name)
            try:
                directory = self._directories.ensure(names)
                fd = posix.create_file(f"{directory.path}{os.sep}{chosen}")
            except FileExistsError:
                chosen = another_name(name)
            except FileNotFoundError:
                # The folder was empty for a moment and another thread removed it.
                self._directories.forget(names)
            else:
                if not self.spool.is_reserved("/".join((OBJECTS, *names, chosen))):
                    return directory, chosen, self._counted(fd)
                # Since the first look somebody was given the name, or its old file was removed.
                os.close(fd)
                Path(directory.path, chosen).unlink(missing_ok=True)
        raise OSError(errno.EEXIST, f"no name could be found for {name}")

    def close_file(self, fd: int) -> None:
        """Close a descriptor from `create_file`."""
        with self._counting:
            self._descriptors -= 1
        os.close(fd)

    def tidy(self, directory: Directory | None, bucket: Bucket) -> None:
        """Remove a folder of a bucket, and those above it in the bucket, where empty."""
        if directory is not None:
            left = self._directories.remove_empty(directory.path, self._bucket_path(bucket.name))
            bucket.removed_from.add(left)

    def _closed(self, bucket: Bucket) -> None:
        # Nobody looks into a closed bucket again: what was discarded must not come back.
        self._flush_existing(bucket.removed_from)
        self._directories.forget_below(self._bucket_path(bucket.name))
        self._report_closed(bucket.name)

    def flush_failed(self) -> None:
        """A flush failed: what is being written is suspect, and goes on in another bucket."""
        self.epoch += 1
        self.buckets.retire_current()


def _own(path: str) -> str:
    """The path of the file of its own that an object has or will have; "" where not chosen."""
    place = spooled(path)
    return path if place is None else place.own


def _read_marker(root: Path) -> uuid.UUID:
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
        store_id, number = uuid.UUID(content["id"]), content["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreUnavailable(
            f"{root} is not a data directory: {MARKER} is missing; "
            f"if it should be one, is its disk mounted?"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreUnavailable(f"{root / MARKER} cannot be read: {error}") from error
    if number != FORMAT:
        raise StoreUnavailable(
            f"{root} has format {number}, this version reads {FORMAT}; use a newer version"
        )
    return store_id
