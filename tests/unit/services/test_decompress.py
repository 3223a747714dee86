"""Encapsulated pixel data made native: what changes, and that nothing else does."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from hilum.errors import InvalidDicom
from hilum.services.decompress import (
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    Decoded,
    decompress,
)


def le(group: int, number: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def long(group: int, number: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    return struct.pack("<HH2s2xI", group, number, vr.encode(), length) + value


UNDEFINED = 0xFFFFFFFF
ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
)


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def open_item(value: bytes) -> bytes:
    return item(value, UNDEFINED) + ITEM_END


def fragments(*parts: bytes) -> bytes:
    return long(0x7FE0, 0x10, "OB", b"".join(map(item, (b"", *parts))) + SEQUENCE_END, UNDEFINED)


UID = le(0x0008, 0x0018, "UI", b"1.2.3\0")
COLOUR = le(0x0028, 0x0004, "CS", b"YBR_FULL_422")
PLANAR = le(0x0028, 0x0006, "US", b"\1\0")
BITS = le(0x0028, 0x0100, "US", b"\x08\0")
LOSSY = le(0x0028, 0x2110, "CS", b"01")
PRIVATE = le(0x0029, 0x0010, "LO", b"VENDOR") + long(0x0029, 0x1001, "OB", b"\1\2")
PADDING = long(0xFFFC, 0xFFFC, "OB", bytes(4))
PIXELS = b"abcdef"


def six_bytes(_: bytes) -> Decoded:
    return Decoded(6, 8, [b"abc", b"def"], {PHOTOMETRIC_INTERPRETATION: "RGB"})


def run(data: bytes, decode=six_bytes) -> bytes:
    return b"".join(map(bytes, decompress(data, decode)))


def native(value: bytes = PIXELS, vr: str = "OB") -> bytes:
    return long(0x7FE0, 0x10, vr, value)


RGB = le(0x0028, 0x0004, "CS", b"RGB ")


def test_pixel_data_and_what_is_named_change_and_nothing_else() -> None:
    data = UID + COLOUR + BITS + LOSSY + PRIVATE + fragments(b"12", b"34") + PADDING
    assert run(data) == UID + RGB + BITS + LOSSY + PRIVATE + native() + PADDING


def test_attributes_come_to_their_place_and_into_their_absence() -> None:
    def decode(_: bytes) -> Decoded:
        changed = {PHOTOMETRIC_INTERPRETATION: "RGB", PLANAR_CONFIGURATION: 0}
        return Decoded(6, 16, [PIXELS], changed)

    planar = le(0x0028, 0x0006, "US", b"\0\0")
    for given in (COLOUR + PLANAR, COLOUR, PLANAR, b""):
        found = run(UID + given + BITS + fragments(b"12"), decode)
        assert found == UID + RGB + planar + BITS + native(vr="OW")


def test_what_says_where_fragments_are_goes_with_them() -> None:
    tables = b"".join(long(0x7FE0, number, "OV", bytes(8)) for number in (1, 2, 3))
    lengths = le(0x0028, 0x0000, "UL", bytes(4)), le(0x7FE0, 0x0000, "UL", bytes(4))
    data = lengths[0] + RGB + lengths[1] + tables + fragments(b"12")
    assert run(data) == RGB + native()


def test_an_odd_length_is_padded() -> None:
    assert run(fragments(b"12"), lambda _: Decoded(3, 8, [b"abc"])) == native(b"abc\0")


def test_what_has_no_pixel_data_stays() -> None:
    sequence = long(0x0040, 0xA730, "SQ", open_item(UID) + SEQUENCE_END, UNDEFINED)
    data = UID + PRIVATE + sequence
    assert run(data, lambda _: pytest.fail("nothing to decode")) == data


@pytest.mark.parametrize("delimited", [False, True])
def test_an_icon_is_decoded_too(delimited: bool) -> None:
    asked: list[bytes] = []

    def decode(data: bytes) -> Decoded:
        asked.append(data)
        return six_bytes(data)

    icon = COLOUR + fragments(b"i")
    other = long(0x0040, 0xA730, "SQ", item(UID))
    items = open_item(icon) + item(UID) + SEQUENCE_END if delimited else item(icon) + item(UID)
    sequence = long(0x0088, 0x0200, "SQ", items, UNDEFINED if delimited else None)
    data = UID + other + sequence + fragments(b"12")
    expected = open_item(RGB + native()) + open_item(UID) + SEQUENCE_END
    assert run(data, decode) == (
        UID + RGB + other + long(0x0088, 0x0200, "SQ", expected, UNDEFINED) + native()
    )
    assert asked == [data, icon]


def test_an_implicit_item_beside_one_with_pixel_data_stays() -> None:
    implicit = struct.pack("<HHI", 0x0008, 0x0018, 6) + b"1.2.3\0"
    sequence = long(0x0088, 0x0200, "SQ", item(implicit) + item(COLOUR + fragments(b"i")))
    expected = open_item(implicit) + open_item(RGB + native()) + SEQUENCE_END
    assert run(RGB + sequence + fragments(b"12")) == (
        RGB + long(0x0088, 0x0200, "SQ", expected, UNDEFINED) + native()
    )


def test_a_native_icon_stays() -> None:
    sequence = long(0x0088, 0x0200, "SQ", item(native(b"ic")))
    assert run(RGB + sequence + fragments(b"12")) == RGB + sequence + native()


def _nested(levels: int) -> bytes:
    data = UID
    for _ in range(levels):
        data = long(0x0040, 0xA730, "SQ", open_item(data) + SEQUENCE_END, UNDEFINED)
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<HHI", 8, 0x18, 6) + b"1.2.3\0", "not in explicit VR little endian"),
        (UID + fragments(b"12")[:-8], "ends in the middle"),
        (UID + fragments(b"12")[:-9], "longer than what holds it"),
        (UID + native(), "not encapsulated"),
        (struct.pack("<HHI", 8, 0x18, 6) + b"1.2.3\0", "not in explicit VR"),
        (UID + le(0x0028, 0x0004, "CS", b"RGB ")[:-2], "longer than what holds it"),
        (UID + COLOUR + BITS + SEQUENCE_END, "where a data element was expected"),
        (long(0x0040, 0xA730, "SQ", UID, UNDEFINED), "where an item was expected"),
        (_nested(70), "nested deeper"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidDicom, match=reason):
        run(data)


def test_a_decoder_that_gives_less_or_more_than_it_said() -> None:
    for frames in ([b"abc"], [b"abcd", b"efgh"]):
        with pytest.raises(InvalidDicom, match="were decoded of 6"):
            run(fragments(b"12"), lambda _, frames=frames: Decoded(6, 8, frames))


def test_more_than_a_native_value_can_have() -> None:
    with pytest.raises(InvalidDicom, match="no native value"):
        run(fragments(b"12"), lambda _: Decoded(1 << 32, 8, []))


def test_frames_are_decoded_as_they_are_taken() -> None:
    taken = []

    def frames() -> Iterable[bytes]:
        for number in range(3):
            taken.append(number)
            yield b"ab"

    pieces = decompress(UID + fragments(b"12"), lambda _: Decoded(6, 8, frames()))
    next(pieces)
    assert not taken
    assert b"".join(map(bytes, pieces)).endswith(b"ababab")
