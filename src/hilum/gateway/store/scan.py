"""Reading stored files back: is this one whole, and what lies in a bucket.

A file is whole when its header is ours and says so, and its data set has the length and the
XXH3-128 digest that the header names. Nothing here trusts a database, so `hilum verify` and
`hilum reindex` work without one.

Every reader of a stored object comes through `open_place`, which knows of the spool.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import xxhash

from hilum.errors import InvalidDicom, NotFound
from hilum.gateway.store.file_meta import BEGINNING, HEADER_MAXIMUM, ObjectMeta, parse_header
from hilum.gateway.store.layout import (
    OBJECTS,
    is_bucket,
    parse_path,
    record_path,
    segment_path,
    spooled,
)

__all__ = [
    "Found",
    "Problem",
    "buckets_on_disk",
    "examine",
    "open_object",
    "open_place",
    "scan_bucket",
    "scan_segment",
]

_CHUNK = 1 << 20  # bytes read at a time: memory stays constant whatever the object's size


class Problem(StrEnum):
    """Why a file is not a whole object."""

    MISSING = "there is no such file"
    FOREIGN = "the name is not one of ours"
    UNREADABLE = "the file cannot be read"
    DAMAGED = "the file meta information is damaged"
    INCOMPLETE = "the data set was still being received"
    LENGTH = "the data set's length is not the recorded one"
    DIGEST = "the data set's digest is not the recorded one"


@dataclass(frozen=True, slots=True)
class Found:
    """A file below the data directory.

    Attributes:
        path: relative to the data directory, with slashes.
        meta: from its header, or None when that could not be read.
        problem: None when the object is whole.
        offset: where its data set begins; 0 without `meta`.
    """

    path: str
    meta: ObjectMeta | None
    problem: Problem | None
    offset: int = 0


def open_place(root: str, path: str) -> tuple[BinaryIO, int | None]:
    """Open the file that holds an object, its own one or a segment of the spool.

    An object that has been moved since its path was read is found in its own file.

    Args:
        root: absolute path of the data directory.
        path: of the object; checked by the caller.

    Returns:
        The file, at the object's file meta, and where that is in a segment; None where the file
        is the object's own, which then ends with it.

    Raises:
        OSError: it is in neither place.
    """
    place = spooled(path)
    if place is None:
        return open(Path(root, path), "rb"), None
    try:
        file = open(Path(root, segment_path(place.segment)), "rb")  # noqa: SIM115 - handed on
    except FileNotFoundError:
        if not place.own:
            raise
        return open(Path(root, place.own), "rb"), None
    file.seek(place.offset)
    return file, place.offset


def open_object(root: str, path: str) -> tuple[BinaryIO, ObjectMeta]:
    """Open a stored object at its data set, which reaches to the end of what is returned.

    Args:
        root: absolute path of the data directory.
        path: of the object; checked by the caller.

    Raises:
        NotFound: there is no such file.
        InvalidDicom: the header is not ours or is damaged.
    """
    try:
        file, start = open_place(root, path)
    except FileNotFoundError:
        raise NotFound(
            "the object's file is not there; 'hilum verify' lists such objects"
        ) from None
    try:
        meta, offset = parse_header(file.read(HEADER_MAXIMUM))
        if start is None:
            file.seek(offset)
            return file, meta
        # What lies in the spool is small and stays in memory as a whole.
        file.seek(start + offset)
        data = file.read(meta.length)
    except BaseException:
        file.close()
        raise
    file.close()
    return io.BytesIO(data), meta


def examine(root: str, path: str, *, digest: bool = True) -> Found:
    """Read one object and say whether it is whole.

    Args:
        root: absolute path of the data directory.
        path: relative to it; checked by the caller.
        digest: whether to read all of it; else its length alone is compared.
    """
    try:
        file, start = open_place(root, path)
        with file:
            return _examine(file, start, path, digest)
    except FileNotFoundError:
        return Found(path, None, Problem.MISSING)
    except InvalidDicom:
        return Found(path, None, Problem.DAMAGED)
    except OSError:
        return Found(path, None, Problem.UNREADABLE)


def _examine(file: BinaryIO, start: int | None, path: str, digest: bool) -> Found:
    meta, offset = parse_header(file.read(HEADER_MAXIMUM))
    here = os.fstat(file.fileno()).st_size - (start or 0) - offset
    problem = None
    if not meta.complete:
        problem = Problem.INCOMPLETE
    elif here < meta.length or (here > meta.length and start is None):
        problem = Problem.LENGTH
    elif digest:
        file.seek((start or 0) + offset)
        if _digest(file, meta.length) != meta.digest:
            problem = Problem.DIGEST
    return Found(path, meta, problem, offset)


def _digest(file: BinaryIO, length: int) -> bytes:
    running = xxhash.xxh3_128()
    while length and (chunk := file.read(min(_CHUNK, length))):
        running.update(chunk)
        length -= len(chunk)
    return running.digest()


def buckets_on_disk(root: str) -> Iterator[str]:
    """Names of all buckets below a data directory, oldest first."""
    top = Path(root, OBJECTS)
    for year in _folders(top):
        for month in _folders(top / year):
            for rest in _folders(top / year / month):
                name = f"{year}/{month}/{rest}"
                if is_bucket(name):
                    yield name


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def scan_bucket(
    root: str, bucket: str, *, skip: Container[str] = (), digest: bool = True
) -> Iterator[Found]:
    """Every file in a bucket, read one by one.

    Args:
        root: absolute path of the data directory.
        bucket: its name; one that has no folder holds nothing.
        skip: relative paths that need not be read and are left out.
        digest: whether to read all of each file; else lengths alone are compared.
    """
    folders = [f"{OBJECTS}/{bucket}"]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(Path(root, folder)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif path not in skip:
                yield _found(root, path, entry.is_file(follow_symlinks=False), digest)


def _found(root: str, path: str, regular: bool, digest: bool) -> Found:
    try:
        parse_path(path)
    except ValueError:
        return Found(path, None, Problem.FOREIGN)
    if not regular:
        return Found(path, None, Problem.FOREIGN)
    return examine(root, path, digest=digest)


def scan_segment(root: str, segment: str, *, digest: bool = True) -> Iterator[Found]:
    """Every object in a segment of the spool, in the order they came.

    What a power cut left at its end, or damage in between, is passed over to the next object.

    Args:
        root: absolute path of the data directory.
        segment: its name; one that is not there holds nothing.
        digest: whether to read all of each object; else lengths alone are compared.
    """
    try:
        with open(Path(root, segment_path(segment)), "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return
    with data:
        at = 0
        while at >= 0:
            path = record_path(segment, at)
            try:
                meta, offset = parse_header(data[at : at + HEADER_MAXIMUM])
            except InvalidDicom:
                if data[at : at + len(BEGINNING)] == BEGINNING:
                    yield Found(path, None, Problem.DAMAGED)
                at = data.find(BEGINNING, at + 1)
                continue
            begin, end = at + offset, at + offset + meta.length
            problem = None
            if not meta.complete:
                problem = Problem.INCOMPLETE
            elif end > len(data):
                problem = Problem.LENGTH
            elif digest and xxhash.xxh3_128_digest(data[begin:end]) != meta.digest:
                problem = Problem.DIGEST
            yield Found(path, meta, problem, offset)
            # A length that leads beyond the end is not believed.
            at = data.find(BEGINNING, end if end <= len(data) else at + 1)
