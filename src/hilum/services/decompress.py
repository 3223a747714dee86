"""Data sets with encapsulated pixel data, with native pixel data instead; nothing else changes.

Encapsulated transfer syntaxes are explicit VR little endian, and so is what comes out: what is not
named here is given out byte for byte. Pixel data inside sequences, such as that of icons, is decoded
too; the sequence then has undefined length.

Standard: PS3.5 8.1 (native), 8.2, A.4 (encapsulated), 7.5 (sequences); PS3.3 C.7.6.3.1.8 (Extended
Offset Table).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hilum.errors import InvalidDicom
from hilum.services.element_reader import MAX_DEPTH, PIXEL_DATA
from hilum.services.elements import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Buffer,
    Encoding,
    encoding_of_item,
    guess_encoding,
    key_of,
    read_element,
    tag_text,
)

__all__ = ["PHOTOMETRIC_INTERPRETATION", "PLANAR_CONFIGURATION", "Decoded", "decompress"]

PHOTOMETRIC_INTERPRETATION = 0x00280004
PLANAR_CONFIGURATION = 0x00280006

LONGEST_VALUE = 0xFFFFFFFE
"""Bytes of native pixel data. Standard: PS3.5 7.1."""

# Extended Offset Table, its lengths, Encapsulated Pixel Data Value Total Length: of fragments only.
_OF_FRAGMENTS = frozenset(key_of(0x7FE0, element) for element in (1, 2, 3))
# Pixel Data of undefined length in explicit VR: what is looked for inside sequences.
_MARKS = tuple(
    struct.pack("<HH2s2xI", 0x7FE0, 0x0010, vr, UNDEFINED) for vr in (b"OB", b"OW", b"UN")
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixel data that has been decoded.

    Args:
        length: bytes of all frames together.
        bits_allocated: Bits Allocated, which decides the VR.
        frames: their values in little endian, colour by pixel.
        changed: values of other attributes that decoding changed, by tag: text as CS, numbers as US.
    """

    length: int
    bits_allocated: int
    frames: Iterable[Buffer]
    changed: Mapping[int, str | int] = field(default_factory=dict)


Decode = Callable[[bytes], Decoded]
"""Decodes the pixel data of a data set, or of an item of a sequence, given as it is encoded."""


def decompress(data: bytes, decode: Decode) -> Iterator[Buffer]:
    """Give out a data set in explicit VR little endian, its pixel data native.

    Attributes that say how the image came about, Lossy Image Compression (0028,2110) and the SOP
    Instance UID among them, stay: decompression makes no new image.

    Standard: PS3.3 C.7.6.1.1.5; PS3.5 A.2.

    Args:
        data: in an encapsulated transfer syntax, without file meta.
        decode: called once for each Pixel Data, before anything of what holds it is given out.

    Raises:
        InvalidDicom: while iterating: it is no such data set, or its pixel data is longer than a
            native value can be. What ``decode`` raises goes through.
    """
    try:
        if data and guess_encoding(data, 0, EXPLICIT_LITTLE, final=True)[0] is not EXPLICIT_LITTLE:
            raise InvalidDicom("the data set is not in explicit VR little endian, as it should be")
        yield from _data_set(data, 0, len(data), decode, 0)
    except struct.error:
        raise InvalidDicom("the data set ends in the middle of an element") from None


@dataclass(frozen=True, slots=True)
class _Element:
    """An element in the bytes.

    Args:
        key: of the tag.
        vr: None where none was written.
        at: where it begins.
        start: where its value begins.
        length: of the value, or ``UNDEFINED``.
        after: where the next one begins.
    """

    key: int
    vr: str | None
    at: int
    start: int
    length: int
    after: int

    @property
    def tag(self) -> int:
        return (self.key & 0xFFFF) << 16 | self.key >> 16

    @property
    def is_encapsulated(self) -> bool:
        return self.key == PIXEL_DATA and self.length == UNDEFINED

    @property
    def is_native(self) -> bool:
        return self.key == PIXEL_DATA and 0 < self.length < UNDEFINED


def _data_set(data: bytes, at: int, end: int, decode: Decode, depth: int) -> Iterator[Buffer]:
    """One level, without the delimitation of an item."""
    elements = list(_elements(data, at, end, EXPLICIT_LITTLE, depth))
    pixels = next((each for each in elements if each.is_encapsulated), None)
    if not depth and any(each.is_native for each in elements):
        raise InvalidDicom("Pixel Data is not encapsulated, as the transfer syntax says")
    decoded = decode(data[at:end]) if pixels else None
    changed = sorted(decoded.changed.items()) if decoded else []
    view = memoryview(data)
    kept = at  # up to here everything has been given out
    for each in elements:
        while changed and changed[0][0] <= each.tag:
            yield view[kept : each.at]
            kept = each.after if changed[0][0] == each.tag else each.at
            yield _attribute(*changed.pop(0))
        if decoded and each is pixels:
            yield view[kept : each.at]
            yield from _native(decoded)
        elif _is_group_length(each) or (decoded and each.key in _OF_FRAGMENTS):
            yield view[kept : each.at]  # what it says is no longer so
        elif each.vr == "SQ" and _holds_pixel_data(data, each):
            yield view[kept : each.at]
            yield from _sequence(data, each, decode, depth)
        else:
            continue
        kept = each.after
    yield view[kept:end]


def _native(decoded: Decoded) -> Iterator[Buffer]:
    """Pixel Data. Standard: PS3.5 A.2: OW above 8 bits; below, OB keeps the order of bytes."""
    padding = decoded.length % 2
    if decoded.length + padding > LONGEST_VALUE:
        raise InvalidDicom(
            f"{decoded.length:,} bytes of pixel data, which no native value can have"
        )
    vr = b"OB" if decoded.bits_allocated <= 8 else b"OW"
    yield struct.pack("<HH2s2xI", 0x7FE0, 0x0010, vr, decoded.length + padding)
    left = decoded.length
    for frame in decoded.frames:
        left -= len(frame)
        yield frame
    if left:
        raise InvalidDicom(f"{decoded.length - left:,} bytes were decoded of {decoded.length:,}")
    yield b"\0" * padding


def _attribute(tag: int, value: str | int) -> bytes:
    if isinstance(value, int):
        vr, encoded = b"US", struct.pack("<H", value)
    else:
        vr, encoded = b"CS", value.encode("ascii")
        encoded += b" " * (len(encoded) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(encoded)) + encoded


def _sequence(data: bytes, element: _Element, decode: Decode, depth: int) -> Iterator[Buffer]:
    """A sequence with pixel data somewhere in it."""
    yield data[element.at : element.at + 8] + struct.pack("<I", UNDEFINED)
    delimited = element.length == UNDEFINED
    items, _ = _items(
        data, element.start, element.after, EXPLICIT_LITTLE, depth, delimited=delimited
    )
    for start, stop, encoding in items:
        yield _mark(ITEM, UNDEFINED)
        if encoding is EXPLICIT_LITTLE:
            yield from _data_set(data, start, stop, decode, depth + 1)
        else:  # an implicit item among explicit ones has no encapsulated value
            yield memoryview(data)[start:stop]
        yield _mark(ITEM_DELIMITATION, 0)
    yield _mark(SEQUENCE_DELIMITATION, 0)


def _mark(key: int, length: int) -> bytes:
    return struct.pack("<HHI", key & 0xFFFF, key >> 16, length)


def _is_group_length(element: _Element) -> bool:
    return element.key >> 16 == 0 and element.length == 4


def _holds_pixel_data(data: bytes, element: _Element) -> bool:
    return any(data.find(mark, element.start, element.after) >= 0 for mark in _MARKS)


# ── where what is ─────────────────────────────────────────────────────────────────────────────


def _elements(data: bytes, at: int, end: int, encoding: Encoding, depth: int) -> Iterator[_Element]:
    """The elements of a data set or item up to ``end``, or to a delimitation."""
    while at < end:
        key, vr, start, length = read_element(data, at, end, encoding, final=True)
        if key & 0xFFFF == 0xFFFE:
            if key == ITEM_DELIMITATION:
                return
            raise InvalidDicom(f"{tag_text(key)} stands where a data element was expected")
        if length == UNDEFINED:
            inner = IMPLICIT_LITTLE if vr == "UN" and key != PIXEL_DATA else encoding
            _, after = _items(data, start, end, inner, depth, delimited=True)
        else:
            after = start + length
        if after > end:
            raise InvalidDicom(f"{tag_text(key)} is longer than what holds it")
        yield _Element(key, vr, at, start, length, after)
        at = after


def _items(
    data: bytes, at: int, end: int, encoding: Encoding, depth: int, *, delimited: bool
) -> tuple[list[tuple[int, int, Encoding]], int]:
    """Where the items of a sequence, or fragments, begin and end, how they are written; the end."""
    if depth > MAX_DEPTH:
        raise InvalidDicom(f"sequences nested deeper than {MAX_DEPTH}")
    items: list[tuple[int, int, Encoding]] = []
    while delimited or at < end:
        key, _, start, length = read_element(data, at, end, encoding, final=True)
        if key == SEQUENCE_DELIMITATION and delimited:
            return items, start
        if key != ITEM:
            raise InvalidDicom(f"{tag_text(key)} stands where an item was expected")
        inner = encoding_of_item(data, start, length, encoding) if length else encoding
        stop = at = start + length
        if length == UNDEFINED:
            stop = start
            for each in _elements(data, start, end, inner, depth + 1):
                stop = each.after
            at = stop + len(_mark(ITEM_DELIMITATION, 0))
        if at > end:
            raise InvalidDicom("an item is longer than what holds it")
        items.append((start, stop, inner))
    return items, at
