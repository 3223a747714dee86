"""Reading stored files back: is this one whole, and what lies in a bucket.

A file is whole when its header is ours and says so, and its data set has the length and the
XXH3-128 digest that the header names. Nothing here trusts a database, so `hilum verify` and
`hilum reindex` work without one.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import xxhash

from hilum.errors import InvalidDicom, NotFound
from hilum.gateway.store.file_meta import HEADER_MAXIMUM, ObjectMeta, parse_header
from hilum.gateway.store.layout import OBJECTS, is_bucket, parse_path

__all__ = ["Found", "Problem", "buckets_on_disk", "examine", "open_object", "scan_bucket"]

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


def open_object(full: str) -> tuple[BinaryIO, ObjectMeta]:
    """Open a stored file at its data set, which reaches to the end of the file.

    Raises:
        NotFound: there is no such file.
        InvalidDicom: the header is not ours or is damaged.
    """
    try:
        file = open(full, "rb")  # noqa: SIM115 - handed to the caller
    except FileNotFoundError:
        raise NotFound(
            "the object's file is not there; 'hilum verify' lists such objects"
        ) from None
    try:
        meta, offset = parse_header(file.read(HEADER_MAXIMUM))
        file.seek(offset)
    except BaseException:
        file.close()
        raise
    return file, meta


def examine(root: str, path: str, *, digest: bool = True) -> Found:
    """Read one file and say whether it is a whole object.

    Args:
        root: absolute path of the data directory.
        path: relative to it; checked by the caller.
        digest: whether to read all of it; else its length alone is compared.
    """
    try:
        with open(Path(root, path), "rb") as file:
            return _examine(file, path, digest)
    except FileNotFoundError:
        return Found(path, None, Problem.MISSING)
    except InvalidDicom:
        return Found(path, None, Problem.DAMAGED)
    except OSError:
        return Found(path, None, Problem.UNREADABLE)


def _examine(file: BinaryIO, path: str, digest: bool) -> Found:
    meta, offset = parse_header(file.read(HEADER_MAXIMUM))
    problem = None
    if not meta.complete:
        problem = Problem.INCOMPLETE
    elif os.fstat(file.fileno()).st_size - offset != meta.length:
        problem = Problem.LENGTH
    elif digest:
        file.seek(offset)
        if _digest(file) != meta.digest:
            problem = Problem.DIGEST
    return Found(path, meta, problem, offset)


def _digest(file: BinaryIO) -> bytes:
    running = xxhash.xxh3_128()
    while chunk := file.read(_CHUNK):
        running.update(chunk)
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
