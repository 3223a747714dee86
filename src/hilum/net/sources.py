"""What can be sent: DICOM files, and members of zip archives, found in files and folders.

Everything here blocks on the disk and belongs in a thread. A data set is read in pieces, so that
a file of any size takes no more memory than a small one; small ones may be kept while they are
looked at, which saves opening them twice.

Standard: PS3.10 7.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo

from hilum.errors import InvalidDicom
from hilum.services.part10 import HEAD_MAXIMUM, FileHead, is_part10, parse_head

__all__ = [
    "FileSource",
    "Found",
    "PassedOver",
    "READ_ERRORS",
    "Source",
    "ZipLimits",
    "ZipSource",
    "find_sources",
    "why",
]

PIECE = 1 << 20
"""Bytes read at once of a large data set; even, as every fragment but the last must be."""

READ_ERRORS = (OSError, InvalidDicom, BadZipFile, zlib.error, EOFError, NotImplementedError,
               RuntimeError, ValueError)  # fmt: skip
"""What reading a source may raise; zipfile has no exception of its own for most of it."""

SMALL = 64 << 10
"""A file up to this size is read whole when it is looked at."""

KEEP = 64 << 20
"""How many bytes of small files ``find_sources`` keeps."""

_HEAD = 4096
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Source(Protocol):
    """A data set that can be sent."""

    @property
    def name(self) -> str:
        """For people: a path, or an archive's path and its member."""

    @property
    def head(self) -> FileHead:
        """What it is."""

    @property
    def length(self) -> int:
        """Bytes of the data set."""

    @property
    def content(self) -> bytes | None:
        """The whole data set, where it was kept."""

    def pieces(self) -> Iterator[bytes]:
        """The data set in pieces of ``PIECE`` bytes, the last shorter.

        Raises:
            OSError, InvalidDicom: it cannot be read, or is no longer what it was.
        """


@dataclass(slots=True, eq=False)
class FileSource:
    """The data set of a file on disk. See ``Source`` for the fields."""

    name: str
    head: FileHead
    length: int
    content: bytes | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, keep: int = 0) -> FileSource:
        """Look at a file.

        Args:
            path: the file.
            keep: keep the data set if the file has at most so many bytes (up to ``SMALL``).

        Raises:
            InvalidDicom: it is no DICOM file, or a damaged one.
            OSError: it cannot be read.
        """
        name = os.fspath(path)
        fd = os.open(name, _READ_FLAGS)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidDicom("not a regular file")
            size = status.st_size
            whole = size <= min(keep, SMALL)
            head, data = _head(lambda wanted: os.read(fd, wanted), size if whole else _HEAD)
        finally:
            os.close(fd)
        length = size - head.data_set_offset
        content = data[head.data_set_offset :] if whole else None
        if content is not None and len(content) != length:
            raise InvalidDicom("the file changed while it was read")
        return cls(name, head, length, content)

    def pieces(self) -> Iterator[bytes]:
        """See ``Source``."""
        if self.content is not None:
            yield self.content
            return
        fd = os.open(self.name, _READ_FLAGS)
        try:
            os.lseek(fd, self.head.data_set_offset, os.SEEK_SET)
            yield from _exactly(lambda wanted: os.read(fd, wanted), self.length)
        finally:
            os.close(fd)


def _head(read: Callable[[int], bytes], first: int) -> tuple[FileHead, bytes]:
    """Read until the head is whole; returns it and everything that was read."""
    data = read(max(first, 1))
    while True:
        head = parse_head(data, final=False)
        if head is not None:
            return head, data
        more = read(max(3 * len(data), _HEAD)) if len(data) <= HEAD_MAXIMUM else b""
        if not more:
            head = parse_head(data, final=True)
            assert head is not None
            return head, data
        data += more


def _exactly(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    """Pieces of ``PIECE`` bytes, however the system cuts its reads."""
    left = length
    while left:
        wanted = min(PIECE, left)
        piece = read(wanted)
        while len(piece) < wanted:
            more = read(wanted - len(piece))
            if not more:
                raise InvalidDicom(f"the file became shorter by {left - len(piece)} bytes")
            piece += more
        left -= wanted
        yield piece


# ── zip archives ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """How far an archive is believed. Nothing of it is ever written to disk.

    Args:
        max_members: an archive with more is refused.
        max_member_size: bytes of a member after decompression; a larger one fails alone.
        max_ratio: bytes out per byte in; a member over it fails alone, from ``ratio_from`` bytes
            on, as small images of background compress by a thousand.
        ratio_from: see ``max_ratio``.
    """

    max_members: int = 200_000
    max_member_size: int = 16 << 30
    max_ratio: int = 200
    ratio_from: int = 16 << 20


@dataclass(slots=True, eq=False)
class ZipSource:
    """A member of a zip archive. See ``Source`` for the fields.

    The member's own name is only shown, never used as a path.
    """

    archive: ZipFile
    info: ZipInfo
    head: FileHead
    length: int
    content: bytes | None = None

    @property
    def name(self) -> str:
        """The archive's path and the member's name."""
        return _member_name(self.archive, self.info)

    @classmethod
    def open(
        cls, archive: ZipFile, info: ZipInfo, *, keep: int = 0, limits: ZipLimits | None = None
    ) -> ZipSource:
        """Look at a member, decompressing no more of it than its head.

        Raises:
            InvalidDicom: it is no DICOM file, or over a limit.
            One of ``READ_ERRORS``: it cannot be read.
        """
        refusal = _refusal(info, limits or ZipLimits())
        if refusal is not None:
            raise InvalidDicom(refusal)
        whole = info.file_size <= min(keep, SMALL)
        with archive.open(info) as member:
            head, data = _head(member.read, info.file_size if whole else _HEAD)
        content = data[head.data_set_offset :] if whole else None
        return cls(archive, info, head, info.file_size - head.data_set_offset, content)

    def pieces(self) -> Iterator[bytes]:
        """See ``Source``; zipfile reads no more than the size that the archive's directory says."""
        if self.content is not None:
            yield self.content
            return
        with self.archive.open(self.info) as member:
            left = self.head.data_set_offset
            while left:
                passed = member.read(min(left, PIECE))
                if not passed:
                    raise InvalidDicom("the archive's member is shorter than its directory says")
                left -= len(passed)
            yield from _exactly(member.read, self.length)


def _refusal(info: ZipInfo, limits: ZipLimits) -> str | None:
    """Why a member is not decompressed, if it is not."""
    if info.flag_bits & 0x1:
        return "encrypted; extract the archive and send its files"
    if info.file_size > limits.max_member_size:
        return f"{info.file_size} bytes, at most {limits.max_member_size} are taken"
    if info.file_size > max(limits.max_ratio * info.compress_size, limits.ratio_from):
        return (
            f"{info.compress_size} bytes that become {info.file_size}, over {limits.max_ratio}:1; "
            "extract the archive and send its files if that is right"
        )
    return None


def _member_name(archive: ZipFile, info: ZipInfo) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in info.filename)
    return f"{archive.filename}:{shown}"


def _overlapping(members: list[ZipInfo]) -> bool:
    """Whether members share bytes, as archives do that make terabytes out of megabytes."""
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            return True
        end = info.header_offset + info.compress_size
    return False


# ── looking through folders ─────────────────────────────────────────────────────────────────


class PassedOver(NamedTuple):
    """Something that is not sent, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Found:
    """What ``find_sources`` found. Close it when everything has been sent.

    Args:
        sources: what can be sent, folders in the order of their names.
        skipped: what is no DICOM file, and DICOMDIR files: nothing is lost without them.
        failed: what should be sent and cannot: damaged or unreadable files.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: list[PassedOver] = field(default_factory=list)
    failed: list[PassedOver] = field(default_factory=list)
    archives: list[ZipFile] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all data sets together."""
        return sum(source.length for source in self.sources)

    def close(self) -> None:
        """Close the archives."""
        for archive in self.archives:
            archive.close()

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def find_sources(
    paths: Iterable[str | os.PathLike[str]],
    *,
    keep: int = KEEP,
    limits: ZipLimits | None = None,
    on_file: Callable[[int], None] | None = None,
) -> Found:
    """Look through files, folders with everything below them, and zip archives.

    Links to folders are not followed, so that none is gone through twice or for ever. An archive
    inside a folder is opened if its name ends in ``.zip``, one that is named whatever its name;
    archives inside archives are not.

    Args:
        paths: what to look through.
        keep: bytes of small files that may be kept in memory.
        limits: of archives.
        on_file: called after each file with the number looked at so far.

    Raises:
        FileNotFoundError: one of ``paths`` does not exist; the others were not looked at.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        if not os.path.lexists(name):
            raise FileNotFoundError(name)
    search = _Search(Found(), keep, limits or ZipLimits(), on_file or (lambda count: None))
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112 - a name may be no valid Path, and thousands follow
            search.folder(name)
        else:
            search.file(name, may_be_archive=True)
    return search.found


@dataclass(slots=True)
class _Search:
    found: Found
    keep: int
    limits: ZipLimits
    on_file: Callable[[int], None]
    count: int = 0

    def folder(self, top: str) -> None:
        waiting = [top]
        while waiting:
            path = waiting.pop()
            try:
                with os.scandir(path) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self.found.failed.append(PassedOver(path, why(error)))
                continue
            below = []
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.is_file():
                    self.file(entry.path, may_be_archive=entry.name.lower().endswith(".zip"))
                else:
                    self.found.skipped.append(PassedOver(entry.path, "no file"))
            waiting.extend(reversed(below))

    def file(self, path: str, *, may_be_archive: bool) -> None:
        try:
            self._take(FileSource.open(path, keep=self.keep))
        except READ_ERRORS as error:
            beginning = _beginning(path)
            if may_be_archive and beginning[:4] == b"PK\3\4":
                self._archive(path)
            else:
                self._not_taken(path, error, beginning)
        self._counted()

    def _counted(self) -> None:
        self.count += 1
        self.on_file(self.count)

    def _take(self, source: Source) -> None:
        if source.head.is_directory:
            self.found.skipped.append(PassedOver(source.name, "DICOMDIR"))
            return
        if source.content is not None:
            self.keep -= len(source.content)
        self.found.sources.append(source)

    def _not_taken(self, name: str, error: Exception, beginning: bytes) -> None:
        unreadable = not isinstance(error, InvalidDicom)
        to = self.found.failed if unreadable or is_part10(beginning) else self.found.skipped
        to.append(PassedOver(name, why(error)))

    def _archive(self, path: str) -> None:
        try:
            archive = ZipFile(path)
            self.found.archives.append(archive)
            members = [info for info in archive.infolist() if not info.is_dir()]
            if len(members) > self.limits.max_members:
                raise InvalidDicom(f"{len(members)} members, at most {self.limits.max_members}")
            if _overlapping(members):
                raise InvalidDicom("members overlap, as in no archive that a program wrote")
        except READ_ERRORS as error:
            self.found.failed.append(PassedOver(path, why(error)))
            return
        for info in members:
            self._member(archive, info)
            self._counted()

    def _member(self, archive: ZipFile, info: ZipInfo) -> None:
        name = _member_name(archive, info)
        refusal = _refusal(info, self.limits)
        if refusal is not None:
            # What is in it is not known, so it counts as lost.
            self.found.failed.append(PassedOver(name, refusal))
            return
        try:
            self._take(ZipSource.open(archive, info, keep=self.keep, limits=self.limits))
        except READ_ERRORS as error:
            self._not_taken(name, error, _member_beginning(archive, info))


def _beginning(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(132)
    except OSError:
        return b""


def _member_beginning(archive: ZipFile, info: ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            return member.read(132)
    except READ_ERRORS:
        return b""


def why(error: BaseException) -> str:
    """An exception in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
