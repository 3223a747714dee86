"""The head of a DICOM file: what it is, and where its data set begins.

Files without preamble, without group length, with file meta in implicit VR and without any file
meta are read too: all of them are on people's disks.

Standard: PS3.10 7.1, Table 7.1-1.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hilum.errors import InvalidDicom
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from hilum.services.header import HeaderScan, HeaderScanner

__all__ = [
    "HEAD_MAXIMUM",
    "MEDIA_STORAGE_DIRECTORY",
    "FileHead",
    "data_set_start",
    "encode_head",
    "file_name",
    "is_part10",
    "parse_head",
]

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, which exists on media only. Standard: PS3.4 I, PS3.10 8."""

# File meta is a few hundred bytes; private information of some writers takes a few KB.
HEAD_MAXIMUM = 1 << 20
"""A head that has not ended after so many bytes is no head."""

# SOP Class and Instance UID follow at most a character set, an image type, dates and times.
_LOOK = 1024
_UID_MAXIMUM = 256
_PREAMBLE = 128
_PREFIX = _PREAMBLE + 4
_LONG_LENGTH = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN",
                          b"UR", b"UT", b"UV"})  # fmt: skip
_EXPLICIT = struct.Struct("<HH2sH")
_IMPLICIT = struct.Struct("<HHI")
_U32 = struct.Struct("<I")
_U16 = struct.Struct("<H")

_NATIVE_BY_ENCODING = {
    "implicit little": IMPLICIT_VR_LITTLE_ENDIAN,
    "explicit little": EXPLICIT_VR_LITTLE_ENDIAN,
    "explicit big": EXPLICIT_VR_BIG_ENDIAN,
}

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileHead:
    """What the first bytes of a DICOM file say.

    Args:
        data_set_offset: where the data set begins, bytes from the start of the file.
        sop_class_uid: (0008,0016), or (0002,0002) where the data set does not have it.
        sop_instance_uid: (0008,0018), or (0002,0003).
        transfer_syntax_uid: (0002,0010), or what the data set's first elements show.
    """

    data_set_offset: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @property
    def is_directory(self) -> bool:
        """Whether the file is a DICOMDIR."""
        return self.sop_class_uid == MEDIA_STORAGE_DIRECTORY


def is_part10(data: bytes) -> bool:
    """Whether the bytes begin as PS3.10 demands: 128 bytes of preamble, then ``DICM``."""
    return data[_PREAMBLE:_PREFIX] == b"DICM"


def parse_head(data: bytes, *, final: bool) -> FileHead | None:
    """Read the head of a DICOM file.

    Where file meta information and data set name different instances, the data set is right: a
    C-STORE request must name what its data set holds. Only its first KiB is looked at, and nothing
    of a deflated one.

    Standard: PS3.10 7.1, PS3.7 9.3.1.1.

    Args:
        data: the file's first bytes, as many as there are at hand.
        final: ``data`` is the whole file.

    Returns:
        The head, or None when more bytes are needed; never None when ``final``.

    Raises:
        InvalidDicom: it is no DICOM file, or not a readable one. ``is_part10`` tells the two apart.
    """
    start = _start(data, final=final)
    if start is None:
        return None
    try:
        meta, offset = _file_meta(data, start, final=final)
    except (struct.error, IndexError):
        if final or len(data) >= HEAD_MAXIMUM:
            raise InvalidDicom("the file ends within its file meta information") from None
        return None
    if offset >= len(data):
        if final:
            raise InvalidDicom("the file has no data set")
        return None
    sop_class, instance = _text(meta.get(0x0002)), _text(meta.get(0x0003))
    syntax = _text(meta.get(0x0010))
    if sop_class and instance and syntax:
        if len(data) < offset + _LOOK and not final:
            return None
        beginning = data[offset : offset + _LOOK]
        if not _names(beginning, meta[0x0002], meta[0x0003]):
            sop_class, instance = _named(beginning, syntax, sop_class, instance)
        head: FileHead | None = FileHead(offset, sop_class, instance, syntax)
    else:
        head = _from_data_set(data, offset, sop_class, instance, syntax, final=final)
    if head is not None:
        _must_be_uid("SOP Class UID", head.sop_class_uid)
        _must_be_uid("Transfer Syntax UID", head.transfer_syntax_uid)
    return head


def data_set_start(data: bytes) -> tuple[int, str]:
    """Where a file's data set begins and its transfer syntax, whatever else its head lacks.

    For files that are not instances of a storage class: identifiers, worklist entries.

    Args:
        data: the whole file, or more than its file meta information.

    Returns:
        The transfer syntax is empty where no file meta says it.

    Raises:
        InvalidDicom: the file ends within its file meta information.
    """
    start = _start(data, final=True)
    assert start is not None
    try:
        meta, offset = _file_meta(data, start, final=True)
    except (struct.error, IndexError):
        raise InvalidDicom("the file ends within its file meta information") from None
    return offset, _text(meta.get(0x0010))


def _must_be_uid(name: str, value: str) -> None:
    """Real UIDs with letters or over 64 characters exist; what no item can carry is refused."""
    if len(value) > _UID_MAXIMUM or not value.isascii() or not value.isprintable():
        raise InvalidDicom(f"{name} is {value[:64]!a}, which cannot be proposed to a peer")


def _start(data: bytes, *, final: bool) -> int | None:
    """Where the elements begin; None when the bytes do not yet say."""
    if is_part10(data):
        return _PREFIX
    if len(data) < _PREFIX and not final:
        return None
    return 4 if data[:4] == b"DICM" else 0


def _file_meta(data: bytes, start: int, *, final: bool) -> tuple[dict[int, bytes], int]:
    """Element number → value of group 0002, and where the data set begins.

    Raises:
        struct.error, IndexError: the bytes end before that.
    """
    found: dict[int, bytes] = {}
    position = start
    declared_end = 0
    end = len(data)
    unpack = _EXPLICIT.unpack_from
    while position < end:
        if data[position : position + 2] != b"\2\0" and (final or end - position > 1):
            break
        _, element, vr, length = unpack(data, position)
        # A deflated data set may begin with any two bytes: behind the end that the group length
        # gives, group 0002 must look like an element to be one.
        if position == declared_end and not vr.isupper():
            break
        position += 8
        if vr in _LONG_LENGTH:
            length = _U32.unpack_from(data, position)[0]
            position += 4
        elif not vr.isupper():
            length = _IMPLICIT.unpack_from(data, position - 8)[2]
        if length > HEAD_MAXIMUM:
            raise InvalidDicom(f"(0002,{element:04X}) has {length} bytes: the file meta is damaged")
        if position + length > end:
            raise IndexError(position)
        found[element] = data[position : position + length]
        position += length
        if element == 0 and length == 4:
            declared_end = position + _U32.unpack(found[0])[0]
    return found, position


def _text(raw: bytes | None) -> str:
    return raw.decode("latin-1").strip("\0 ") if raw else ""


def _names(beginning: bytes, sop_class: bytes, instance: bytes) -> bool:
    """Whether a data set names the two at its beginning, as nearly all do: no scan is needed."""
    named = ((0x0016, sop_class), (0x0018, instance))
    explicit = b"".join(_EXPLICIT.pack(8, n, b"UI", len(value)) + value for n, value in named)
    implicit = b"".join(_IMPLICIT.pack(8, n, len(value)) + value for n, value in named)
    return explicit in beginning or implicit in beginning


def _named(beginning: bytes, syntax: str, sop_class: str, instance: str) -> tuple[str, str]:
    """SOP Class and Instance UID that a data set names at its beginning, or the given ones."""
    if sop_class == MEDIA_STORAGE_DIRECTORY or syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return sop_class, instance
    values = _scanner().scan(memoryview(beginning), syntax, final=False).values
    return (
        _text(values.get("SOPClassUID")) or sop_class,
        _text(values.get("SOPInstanceUID")) or instance,
    )


def _from_data_set(
    data: bytes, offset: int, sop_class: str, instance: str, syntax: str, *, final: bool
) -> FileHead | None:
    """Complete what file meta information lacks."""
    scan = _scanner().scan(
        memoryview(data)[offset:], syntax or IMPLICIT_VR_LITTLE_ENDIAN, final=final
    )
    if not scan.complete and len(data) < HEAD_MAXIMUM:
        return None
    sop_class = sop_class or _text(scan.values.get("SOPClassUID"))
    instance = instance or _text(scan.values.get("SOPInstanceUID"))
    if not sop_class or not instance:
        if offset == 0:
            raise InvalidDicom("no DICOM file: neither file meta information nor a data set")
        raise InvalidDicom(
            scan.problem or "SOP Class UID or SOP Instance UID is nowhere in the file"
        )
    return FileHead(offset, sop_class, instance, syntax or _syntax_of(scan))


def _syntax_of(scan: HeaderScan) -> str:
    if scan.deflated:
        return DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    return _NATIVE_BY_ENCODING[scan.encoding]


@lru_cache(maxsize=1)
def _scanner() -> HeaderScanner:
    # Imported here: the scanner brings the data dictionary, a sixth of a second that a command
    # which sends ordinary files need not spend.
    from hilum.services.header import HeaderScanner

    return HeaderScanner(["SOPClassUID", "SOPInstanceUID"])


def encode_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Everything that precedes the data set in a file: zeroed preamble and file meta information.

    A preamble that came with a file is not kept: it may hold another format's header, and be a
    program.

    Standard: PS3.10 7.1.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", sop_class_uid.encode("latin-1")),
            _element(0x0003, b"UI", sop_instance_uid.encode("latin-1")),
            _element(0x0010, b"UI", transfer_syntax_uid.encode("latin-1")),
            _IDENTITY,
        )
    )
    return _ZEROED + _element(0x0000, b"UL", _U32.pack(len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr == b"SH" else b"\0"
    if vr in _LONG_LENGTH:
        return struct.pack("<HH2s2xI", 2, number, vr, len(value)) + value
    return _EXPLICIT.pack(2, number, vr, len(value)) + value


_ZEROED = bytes(_PREAMBLE) + b"DICM"
_IDENTITY = _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()) + _element(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()
)


def file_name(sop_instance_uid: str) -> str:
    """A file name for an instance, without a folder, that is safe on every file system.

    A UID of digits and dots names its file; anything else a peer sent is replaced by its digest,
    so that it can neither leave the folder nor clash with a name of the system.
    """
    if len(sop_instance_uid) <= 64 and _UID.fullmatch(sop_instance_uid):
        return f"{sop_instance_uid}.dcm"
    from hashlib import sha256

    return f"uid-{sha256(sop_instance_uid.encode('utf-8', 'replace')).hexdigest()[:32]}.dcm"
