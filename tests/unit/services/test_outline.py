from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import samples

from hilum.services.dictionary import keyword_for_tag, private_entry
from hilum.services.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNDEFINED
from hilum.services.outline import Kind, Node, OutlineLimits, outline


def short(group: int, number: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def long(group: int, number: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    declared = len(value) if length is None else length
    return struct.pack("<HH2s2xI", group, number, vr.encode(), declared) + value


def plain(group: int, number: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return plain(0xFFFE, 0xE000, value, length)


END_OF_ITEM, END_OF_SEQUENCE = plain(0xFFFE, 0xE00D, b""), plain(0xFFFE, 0xE0DD, b"")
CLASS = short(8, 0x16, "UI", b"1.2\0")
ID = short(0x10, 0x20, "LO", b"ID")


def shape(data: bytes, **options: object) -> list[str]:
    """Nodes in short: depth, tag or kind, VR."""
    nodes = outline(data, EXPLICIT_LITTLE, **options)  # type: ignore[arg-type]
    return [
        f"{node.depth} {node.text}"
        if node.kind is Kind.PROBLEM
        else f"{node.depth} {node.tag:08X} {node.vr}".rstrip()
        if node.kind in (Kind.ELEMENT, Kind.SEQUENCE)
        else f"{node.depth} {node.kind.name}"
        for node in nodes
    ]


def test_elements_sequences_and_items() -> None:
    right = ["0 00081199 SQ", "1 ITEM", "2 00100020 LO", "1 ITEM", "0 00100020 LO"]
    for value in (
        item(ID) + item(b""),
        item(ID, UNDEFINED) + END_OF_ITEM + item(b"") + END_OF_ITEM,  # one superfluous
    ):
        assert shape(long(8, 0x1199, "SQ", value) + ID) == right
        undefined = long(8, 0x1199, "SQ", value + END_OF_SEQUENCE, UNDEFINED)
        assert shape(undefined + END_OF_SEQUENCE + ID) == right
    forgotten = item(ID, UNDEFINED) + item(b"", UNDEFINED) + END_OF_SEQUENCE
    assert shape(long(8, 0x1199, "SQ", forgotten, UNDEFINED) + ID) == right


def test_encapsulated_values() -> None:
    data = long(0x7FE0, 0x10, "OB", item(b"") + item(b"ab") + END_OF_SEQUENCE, UNDEFINED) + ID
    assert shape(data) == ["0 FRAGMENTS", "1 FRAGMENT", "1 FRAGMENT", "0 00100020 LO"]


def test_un_of_undefined_length_is_implicit() -> None:
    inside = item(plain(0x10, 0x20, b"ab")) + END_OF_SEQUENCE
    assert shape(long(9, 0x1001, "UN", inside, UNDEFINED)) == [
        "0 00091001 UN", "1 ITEM", "2 00100020 LO"
    ]  # fmt: skip


def nodes(data: bytes) -> dict[int, Node]:
    return {node.tag: node for node in outline(data, IMPLICIT_LITTLE)}


def test_what_an_implicit_data_set_leaves_unsaid() -> None:
    found = nodes(
        plain(8, 0, bytes(4))
        + plain(8, 5, b"ISO_IR 100")
        + plain(9, 0x10, b"GEMS_IDEN_01")
        + plain(9, 0x1004, b"ab")
        + plain(9, 0x1099, b"ab")
        + plain(9, 0x2001, b"ab")
        + plain(0x11, 0x1001, END_OF_SEQUENCE, UNDEFINED)
        + plain(0x28, 0x103, b"\1\0")
        + plain(0x28, 0x106, b"\1\0")
        + plain(0x28, 0x3006, b"\1\0\2\0")
        + plain(0x28, 0x9999, b"ab")
        + plain(0x6002, 0x3000, b"ab")
    )
    assert {f"{tag:08X}": node.vr for tag, node in found.items()} == {
        "00080000": "UL",
        "00080005": "CS",
        "00090010": "LO",
        "00091004": "SH",
        "00091099": "UN",
        "00092001": "UN",
        "00111001": "SQ",
        "00280103": "US",
        "00280106": "SS",
        "00283006": "OW",
        "00289999": "UN",
        "60023000": "OW",
    }
    assert found[0x00091004].creator == "GEMS_IDEN_01"
    assert found[0x00092001].creator == ""
    assert found[0x00280106].character_set == b"ISO_IR 100"
    assert nodes(plain(0x28, 0x106, b"\1\0"))[0x00280106].vr == "US"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CLASS + ID[:-1], "0 (0010,0020) has 2 bytes, which is more than what is left of the data set"),
        (CLASS + ID[:6], "0 the data set ends here"),
        (long(8, 0x1199, "SQ", b"", UNDEFINED), "1 the data set ends within a sequence"),
        (long(8, 0x1199, "SQ", b"", 99), "0 00081199 is a sequence longer than what holds it"),
        (CLASS + item(b""), "0 (FFFE,E000) stands where a data element was expected"),
        (long(0x7FE0, 0x10, "OB", item(b"", UNDEFINED), UNDEFINED),
         "1 a fragment of an encapsulated value has no length"),
        (short(9, 1, "!!", b"ab") + b"\xff", "0 (0009,0001) has no VR that the standard knows"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(data: bytes, expected: str) -> None:
    assert shape(data)[-1] == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (item(b"", 99), "1 an item has 99 bytes, which is more than what holds it"),
        (CLASS, "1 (0008,0016) stands where an item was expected"),
        (item(ID[:-2] + b"\0\0\0\0"[:0]) + b"\0" * 2, None),
    ],
)
def test_reading_goes_on_where_a_length_says_how(value: bytes, problem: str | None) -> None:
    found = shape(CLASS + long(8, 0x1199, "SQ", value) + ID)
    assert found[0] == "0 00080016 UI"
    assert found[-1] == "0 00100020 LO"
    if problem is not None:
        assert problem in found


def test_limits() -> None:
    deep = b""
    for _ in range(4):
        deep = long(8, 0x1199, "SQ", item(deep))
    assert shape(deep + ID, limits=OutlineLimits(max_depth=4))[-1] == "0 00100020 LO"
    found = shape(deep + ID, limits=OutlineLimits(max_depth=2))
    assert "sequences nested deeper than 2" in found[-2]
    assert shape(CLASS * 3, limits=OutlineLimits(max_nodes=2))[-1] == "0 more than 2 elements"


def test_a_part_of_a_file() -> None:
    data = b"head" + CLASS + ID
    assert shape(data, start=4, end=4 + len(CLASS)) == ["0 00080016 UI"]


@given(st.binary(max_size=200), st.sampled_from([EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG]))
def test_any_bytes_have_an_outline(data: bytes, encoding: object) -> None:
    list(outline(data, encoding))  # type: ignore[arg-type]


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_damaged_files_have_an_outline(place: int, by: bytes) -> None:
    data = samples.named("nested_priv_SQ.dcm").data
    place %= len(data)
    list(outline(data[:place] + by + data[place + len(by) :], IMPLICIT_LITTLE))


def test_names() -> None:
    assert keyword_for_tag(0x60023000) == "OverlayData"
    assert keyword_for_tag(0x00100010) == "PatientName"
    assert keyword_for_tag(0x00091001) == ""
    assert private_entry("GEMS_IDEN_01", 0x00091004) == ("SH", "Product id")
    assert private_entry("GEMS_IDEN_01", 0x000910FF) is None
    assert private_entry("nobody", 0x00091004) is None
