"""The head of a DICOM file, whatever was left out of it."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from tests import samples

from hilum.errors import InvalidDicom
from hilum.services.part10 import (
    HEAD_MAXIMUM,
    FileHead,
    data_set_start,
    encode_head,
    file_name,
    is_part10,
    parse_head,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def explicit(group: int, element: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"UN"):
        return struct.pack(f"{order}HH2sxxI", group, element, vr, len(value)) + value
    return struct.pack(f"{order}HH2sH", group, element, vr, len(value)) + value


def implicit(group: int, element: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", group, element, len(value)) + value


def data_set(order: str = "<") -> bytes:
    return (
        explicit(8, 0x16, b"UI", CT.encode(), order)
        + explicit(8, 0x18, b"UI", b"1.2.3", order)
        + explicit(0x10, 0x10, b"PN", b"Doe^Jo", order)
    )


def implicit_data_set() -> bytes:
    return (
        implicit(8, 0x16, CT.encode()) + implicit(8, 0x18, b"1.2.3") + implicit(0x10, 0x10, b"Doe")
    )


META = {
    0x0002: CT.encode(),
    0x0003: b"1.2.3",
    0x0010: EXPLICIT.encode(),
}


def meta(*, without: tuple[int, ...] = (), group_length: int | None = None, **more: bytes) -> bytes:
    elements = {**META, **{int(name[1:], 16): value for name, value in more.items()}}
    body = b"".join(
        explicit(2, number, b"UI", value)
        for number, value in sorted(elements.items())
        if number not in without
    )
    length = len(body) if group_length is None else group_length
    first = b"" if 0 in without else explicit(2, 0, b"UL", struct.pack("<I", length))
    return first + body


PREFIX = bytes(128) + b"DICM"


def test_a_complete_file() -> None:
    head = meta()
    found = parse_head(PREFIX + head + data_set(), final=True)
    assert found == FileHead(132 + len(head), CT, "1.2.3", EXPLICIT)


@pytest.mark.parametrize(
    ("before", "head"),
    [
        pytest.param(b"", meta(), id="no preamble, no DICM"),
        pytest.param(b"DICM", meta(), id="DICM without preamble"),
        pytest.param(b"II*\0" + bytes(124) + b"DICM", meta(), id="TIFF in the preamble"),
        pytest.param(PREFIX, meta(without=(0,)), id="no group length"),
        pytest.param(PREFIX, meta(group_length=7), id="wrong group length"),
        pytest.param(PREFIX, meta(group_length=0xFFFFFFFF), id="absurd group length"),
        pytest.param(PREFIX, meta(without=(2,)), id="class from the data set"),
        pytest.param(PREFIX, meta(without=(3,)), id="instance from the data set"),
        pytest.param(PREFIX, meta(without=(0x10,)), id="syntax from the data set"),
        pytest.param(PREFIX, b"", id="no file meta at all"),
        pytest.param(PREFIX, meta(_0003=b"1.2.3 "), id="UID padded with a space"),
    ],
)
def test_what_people_leave_out(before: bytes, head: bytes) -> None:
    found = parse_head(before + head + data_set(), final=True)
    assert found == FileHead(len(before + head), CT, "1.2.3", EXPLICIT)


@pytest.mark.parametrize("data", [data_set(), implicit_data_set(), data_set(">")])
def test_the_data_set_is_right_where_file_meta_names_another_instance(data: bytes) -> None:
    syntax = {b"UI": EXPLICIT, b"\0\x16": BIG}.get(data[4:6] if data[0] else data[2:4], IMPLICIT)
    head = meta(_0002=b"1.2.840.10008.5.1.4.1.1.4", _0003=b"1.2.4", _0010=syntax.encode())
    found = parse_head(PREFIX + head + data, final=True)
    assert found == FileHead(132 + len(head), CT, "1.2.3", syntax)


def test_file_meta_in_implicit_vr() -> None:
    head = b"".join(implicit(2, number, value) for number, value in META.items())
    found = parse_head(PREFIX + head + data_set(), final=True)
    assert found == FileHead(132 + len(head), CT, "1.2.3", EXPLICIT)


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (data_set(), EXPLICIT),
        (implicit_data_set(), IMPLICIT),
        (data_set(">"), BIG),
        (zlib.compress(data_set() + bytes(2000), wbits=-15), DEFLATED),
    ],
    ids=["explicit", "implicit", "big endian", "deflated"],
)
def test_a_data_set_alone_shows_its_encoding(data: bytes, syntax: str) -> None:
    assert parse_head(data, final=True) == FileHead(0, CT, "1.2.3", syntax)


def test_a_deflated_data_set_that_begins_like_group_two() -> None:
    # Where the group length ends the file meta, two bytes 02 00 alone begin no element.
    head = meta(_0010=DEFLATED.encode())
    found = parse_head(PREFIX + head + b"\2\0\x10\0\xff\xff\xff\xff more", final=True)
    assert found == FileHead(132 + len(head), CT, "1.2.3", DEFLATED)


@pytest.mark.parametrize(
    ("data", "part10"),
    [
        (b"", False),
        (b"hello, this is a text file\n" * 20, False),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), False),
        (b"PK\3\4" + bytes(300), False),
        (bytes(4096), False),
        (PREFIX, True),
        (PREFIX + meta(), True),
        (PREFIX + meta()[:40], True),
        (PREFIX + meta(without=(2,)) + explicit(0x10, 0x10, b"PN", b"Doe"), True),
        (PREFIX + meta(_0002=b"1.2\x1b[31m") + explicit(0x10, 0x10, b"PN", b"Doe"), True),
        (PREFIX + meta(_0010=b"1." * 300) + data_set(), True),
        (PREFIX + explicit(2, 0x102, b"OB", b"")[:8] + struct.pack("<I", 1 << 31), True),
    ],
)
def test_what_is_no_readable_file(data: bytes, part10: bool) -> None:
    assert is_part10(data) is part10
    with pytest.raises(InvalidDicom):
        parse_head(data, final=True)


def test_what_may_still_come_is_waited_for() -> None:
    """A class that file meta information lacks comes with the data set, when it comes."""
    whole = PREFIX + meta(without=(2,)) + data_set()
    found = parse_head(whole, final=True)
    assert parse_head(whole[:-20], final=False) in (None, found)
    assert parse_head(whole[: -len(data_set()) + 10], final=False) is None


def test_a_head_has_an_end() -> None:
    endless = PREFIX + explicit(2, 0x102, b"OB", b"")[:8] + struct.pack("<I", HEAD_MAXIMUM)
    assert parse_head(endless, final=False) is None
    with pytest.raises(InvalidDicom, match="file meta information"):
        parse_head(endless + bytes(HEAD_MAXIMUM - 10), final=False)


@pytest.mark.parametrize("path", samples.few(), ids=lambda path: path.name)
def test_real_files(path: object) -> None:
    check_head(path)


def check_head(path: object) -> None:
    """As pydicom reads it, from however few bytes."""
    sample = samples.sample(path)  # type: ignore[arg-type]
    raw = sample.path.read_bytes()
    try:
        found = parse_head(raw, final=True)
    except InvalidDicom:
        found = None
    for size in (0, 1, 128, 131, 132, 140, 200, 300, 400, 600, 1000, 4096):
        if size < len(raw) and found is not None:
            assert parse_head(raw[:size], final=False) in (None, found)
    if found is None:
        return
    ds = dcmread(io.BytesIO(raw), force=True, stop_before_pixels=True)
    assert raw[found.data_set_offset :] == sample.data
    assert found.sop_instance_uid == (
        ds.get("SOPInstanceUID") or ds.file_meta.get("MediaStorageSOPInstanceUID")
    )
    assert found.is_directory == (ds.file_meta.get("MediaStorageSOPClassUID", "")[-6:] == "1.3.10")


def test_nearly_every_real_file_is_readable() -> None:
    def readable(raw: bytes) -> bool:
        try:
            return parse_head(raw, final=True) is not None
        except InvalidDicom:
            return False

    unreadable = {path.name for path in samples.paths() if not readable(path.read_bytes())}
    assert unreadable <= {
        "README",
        "empty_charset_LEI.dcm",
        "meta_missing_tsyntax.dcm",
        "nested_priv_SQ.dcm",
        "no_meta.dcm",
    }


@given(st.binary(max_size=600), st.booleans(), st.booleans())
def test_arbitrary_bytes_raise_only_invalid_dicom(data: bytes, prefix: bool, final: bool) -> None:
    try:
        found = parse_head((PREFIX if prefix else b"") + data, final=final)
    except InvalidDicom:
        return
    assert found is not None or not final


@given(st.lists(st.integers(0, 10**8).map(str), min_size=2, max_size=6).map(".".join))
def test_what_is_written_is_read(uid: str) -> None:
    written = encode_head(CT, uid, EXPLICIT)
    assert written[:128] == bytes(128)
    data = explicit(8, 0x16, b"UI", CT.encode()) + explicit(8, 0x18, b"UI", uid.encode())
    assert parse_head(written + data, final=True) == FileHead(len(written), CT, uid, EXPLICIT)
    ds = dcmread(io.BytesIO(written + data))
    assert ds.file_meta.MediaStorageSOPInstanceUID == uid
    assert ds.file_meta.FileMetaInformationGroupLength == len(written) - 144


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.840.10008.1", "0" * 64])
def test_a_uid_names_its_file(uid: str) -> None:
    assert file_name(uid) == f"{uid}.dcm"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_no_name_leaves_the_folder(uid: str) -> None:
    name = file_name(uid)
    assert name.endswith(".dcm")
    assert set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz.-")
    assert not name.startswith(".")
    assert len(name) <= 68


@pytest.mark.parametrize("uid", ["", "..", "../../etc/passwd", "1.2/3", "1..2", "CON", "1" * 65])
def test_other_uids_become_a_digest(uid: str) -> None:
    assert file_name(uid).startswith("uid-")
    assert file_name(uid) != file_name(uid + "1")


def test_where_the_data_set_begins_of_files_that_are_no_instances() -> None:
    written = encode_head(CT, "1.2.3", EXPLICIT)
    assert data_set_start(written + data_set()) == (len(written), EXPLICIT)
    assert data_set_start(written) == (len(written), EXPLICIT)
    assert data_set_start(data_set()) == (0, "")
    assert data_set_start(b"") == (0, "")
    with pytest.raises(InvalidDicom, match="file meta information"):
        data_set_start(written[:-3])
