"""The header of a stored file: our own preamble and file meta information, then nothing of ours.

Standard: PS3.10 7.1, Table 7.1-1.

Private Information (0002,0102), under our Private Information Creator UID, is a record of 112
bytes, little endian:

====== ==== =====================================================================================
offset size meaning
====== ==== =====================================================================================
0      4    ``HILU``
4      1    version of this record, 1
5      1    flags: 1 complete, 2 quarantined, 4 the transfer syntax is not what the data set has
6      1    length of the owner's name; 0: the object belongs to everyone
7      1    0
8      8    length of the data set in bytes (0 until complete)
16     16   XXH3-128 of the data set, most significant byte first (0 until complete)
32     8    time of arrival, microseconds since 1970-01-01 UTC
40     64   owner's name in UTF-8, filled up with NUL
104    4    0
108    4    CRC-32 (zlib) of everything in the file before this field
====== ==== =====================================================================================

Its size is fixed, so a file that was streamed gets its length, digest and flags by writing the
whole header once more over the old one.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache

from hilum.errors import InvalidDicom
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "BEGINNING",
    "HEADER_MAXIMUM",
    "OWNER_MAXIMUM",
    "PRIVATE_INFORMATION_CREATOR_UID",
    "ObjectMeta",
    "encode_header",
    "parse_header",
]

# Made once from a random UUID (PS3.5 B.2); names the record above, of any version.
PRIVATE_INFORMATION_CREATOR_UID = "2.25.73541339295127076248028586113092768595"

HEADER_MAXIMUM = 4096  # bytes; one page, which write-back leaves alone until it is final
OWNER_MAXIMUM = 64  # bytes of UTF-8
# Real UIDs over 64 characters exist and are kept; three of this length still fit in the header.
_UID_MAXIMUM = 512
_AE_MAXIMUM = 64  # 16 characters, however many bytes each took

# What every stored object begins with.
BEGINNING = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 0)[:8]
_FIRST = len(BEGINNING) + 4  # where the elements that (0002,0000) counts begin
_RECORD = struct.Struct("<4sBBBxQ16sQ64s4x")
_RECORD_LENGTH = _RECORD.size + 4
_MAGIC, _VERSION = b"HILU", 1
_COMPLETE, _QUARANTINED, _MISLABELLED = 1, 2, 4
_U32 = struct.Struct("<I")
_LONG_LENGTH = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"})


@dataclass(slots=True)
class ObjectMeta:
    """What is known of an object besides its data set.

    Attributes:
        sop_class_uid: Affected SOP Class UID of the command.
        sop_instance_uid: Affected SOP Instance UID of the command.
        transfer_syntax_uid: of the presentation context.
        receiving_ae_title: the called AE title.
        sending_ae_title: the calling AE title.
        source_ae_title: who wrote the file that was read, when it was read from one.
        owner: a user name, or None for what belongs to everyone.
        arrived_us: microseconds since 1970-01-01 UTC.
        quarantined: kept aside until someone looks at it.
        mislabelled: the data set is not in `transfer_syntax_uid`.
        complete: all bytes were received; `length` and `digest` are final.
        length: of the data set, in bytes.
        digest: XXH3-128 of the data set, 16 bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    receiving_ae_title: str
    sending_ae_title: str
    source_ae_title: str = ""
    owner: str | None = None
    arrived_us: int = 0
    quarantined: bool = False
    mislabelled: bool = False
    complete: bool = False
    length: int = 0
    digest: bytes = bytes(16)


def encode_header(meta: ObjectMeta) -> bytes:
    """Everything that precedes the data set in a stored file.

    The length depends on UIDs and AE titles alone, so it can be written over an earlier one.

    Standard: PS3.10 7.1.

    Raises:
        InvalidDicom: a UID, AE title or the owner's name is too long, or cannot be encoded.
    """
    instance = _element(0x0003, b"UI", _text(meta.sop_instance_uid, _UID_MAXIMUM))
    before = _class_element(meta.sop_class_uid)
    after = _context_elements(
        meta.transfer_syntax_uid,
        meta.source_ae_title,
        meta.sending_ae_title,
        meta.receiving_ae_title,
    )
    counted = len(before) + len(instance) + len(after) + _RECORD_LENGTH
    header = b"".join((BEGINNING, _U32.pack(counted), before, instance, after, _record(meta)))
    return header + _U32.pack(zlib.crc32(header))


def _record(meta: ObjectMeta) -> bytes:
    owner = b"" if meta.owner is None else _text(meta.owner, OWNER_MAXIMUM, "utf-8")
    if meta.owner is not None and (not owner or b"\0" in owner):
        raise InvalidDicom(f"owner {meta.owner!r} is not a name")
    flags = (
        (_COMPLETE if meta.complete else 0)
        | (_QUARANTINED if meta.quarantined else 0)
        | (_MISLABELLED if meta.mislabelled else 0)
    )
    return _RECORD.pack(
        _MAGIC, _VERSION, flags, len(owner), meta.length, meta.digest, meta.arrived_us, owner
    )


def _text(value: str, maximum: int, encoding: str = "latin-1") -> bytes:
    """Bytes of a value; the command set and the association read theirs as Latin-1 too."""
    try:
        data = value.encode(encoding)
    except UnicodeEncodeError as error:
        raise InvalidDicom(f"{value[:64]!r} cannot be written in {encoding}") from error
    if len(data) > maximum:
        raise InvalidDicom(f"{value[:64]!r} has {len(data)} bytes, at most {maximum} are kept")
    return data


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002, padded to even length (PS3.5 6.2)."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    if vr == b"OB":
        return struct.pack("<HH2sxxI", 2, element, vr, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


# An association names few classes and contexts, and AE titles do not change while it lasts.
@lru_cache(maxsize=512)
def _class_element(sop_class_uid: str) -> bytes:
    version = _element(0x0001, b"OB", b"\0\1")
    return version + _element(0x0002, b"UI", _text(sop_class_uid, _UID_MAXIMUM))


@lru_cache(maxsize=512)
def _context_elements(transfer_syntax: str, source: str, sending: str, receiving: str) -> bytes:
    parts = [
        _element(0x0010, b"UI", _text(transfer_syntax, _UID_MAXIMUM)),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
    ]
    titles = ((0x0016, source), (0x0017, sending), (0x0018, receiving))
    parts += [_element(tag, b"AE", _text(title, _AE_MAXIMUM)) for tag, title in titles if title]
    parts.append(_element(0x0100, b"UI", PRIVATE_INFORMATION_CREATOR_UID.encode()))
    # The record follows; it is packed for each object.
    parts.append(struct.pack("<HH2sxxI", 2, 0x0102, b"OB", _RECORD_LENGTH))
    return b"".join(parts)


def parse_header(data: bytes) -> tuple[ObjectMeta, int]:
    """What `encode_header` wrote.

    Args:
        data: the file's first bytes, `HEADER_MAXIMUM` of them or the whole file.

    Returns:
        The facts, and the offset at which the data set begins.

    Raises:
        InvalidDicom: it is no Part 10 file, or not one of ours, or it is damaged.
    """
    if data[: len(BEGINNING)] != BEGINNING:
        raise InvalidDicom("the file does not begin with our preamble, DICM and (0002,0000)")
    if len(data) < _FIRST:
        raise InvalidDicom("the file ends within its file meta information")
    end = _FIRST + _U32.unpack_from(data, _FIRST - 4)[0]
    if end > min(len(data), HEADER_MAXIMUM):
        raise InvalidDicom(
            f"the file meta information ends at {end}, "
            f"but {len(data)} bytes are here and {HEADER_MAXIMUM} allowed"
        )
    elements = _elements(data, end)
    record = elements.get(0x0102, b"")
    if _value(elements, 0x0100) != PRIVATE_INFORMATION_CREATOR_UID:
        raise InvalidDicom("(0002,0102) is not ours; was the file put here by hand?")
    if len(record) != _RECORD_LENGTH or zlib.crc32(data[: end - 4]) != _U32.unpack(record[-4:])[0]:
        raise InvalidDicom("the file meta information is damaged: its CRC-32 does not match")
    return _meta(elements, record), end


def _elements(data: bytes, end: int) -> dict[int, bytes]:
    """Element number → value of group 0002, up to an offset that is within the data."""
    found = {}
    at = _FIRST
    while at < end:
        if end - at < 8:
            raise InvalidDicom(f"an element at {at} of the file meta information is cut")
        group, element, vr, length = struct.unpack_from("<HH2sH", data, at)
        at += 8
        if vr in _LONG_LENGTH:
            length = _U32.unpack_from(data, at)[0] if end - at >= 4 else end
            at += 4
        if group != 2 or length > end - at:
            raise InvalidDicom(f"element ({group:04X},{element:04X}) does not fit in group 0002")
        found[element] = data[at : at + length]
        at += length
    return found


def _value(elements: dict[int, bytes], element: int) -> str:
    value = elements.get(element, b"").decode("latin-1")
    # Exactly the padding that _element adds: what a peer sent is not trimmed further.
    return value.removesuffix("\0")


def _meta(elements: dict[int, bytes], record: bytes) -> ObjectMeta:
    magic, version, flags, owner_length, length, digest, arrived, owner = _RECORD.unpack_from(
        record
    )
    if magic != _MAGIC or version != _VERSION or owner_length > OWNER_MAXIMUM:
        raise InvalidDicom(f"record {magic!r} version {version} is not known to this version")
    return ObjectMeta(
        sop_class_uid=_value(elements, 0x0002),
        sop_instance_uid=_value(elements, 0x0003),
        transfer_syntax_uid=_value(elements, 0x0010),
        receiving_ae_title=_value(elements, 0x0018).rstrip(" "),
        sending_ae_title=_value(elements, 0x0017).rstrip(" "),
        source_ae_title=_value(elements, 0x0016).rstrip(" "),
        owner=owner[:owner_length].decode("utf-8", "replace") if owner_length else None,
        arrived_us=arrived,
        quarantined=bool(flags & _QUARANTINED),
        mislabelled=bool(flags & _MISLABELLED),
        complete=bool(flags & _COMPLETE),
        length=length,
        digest=digest,
    )
