"""Reads a data set element by element, strictly, and into sequences only when told to.

Unlike the header scanner it has no patience with what cannot be told for certain.

Standard: PS3.5 6.2.2 (UN), 7.1 (data elements), 7.5 (sequences), A.4 (encapsulated values).
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate

from hilum.services.elements import (
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    encoding_of_item,
    key_of,
    read_element,
    tag_text,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_ELEMENTS",
    "PIXEL_DATA",
    "Different",
    "Element",
    "ElementReader",
    "Fragments",
    "Level",
]

MAX_DEPTH = 64
"""Sequences inside sequences."""

MAX_ELEMENTS = 2_000_000
"""Elements, items and fragments in one data set: ten seconds of reading. An enhanced multi-frame
image of 10,000 frames has half a million."""

PIXEL_DATA = key_of(0x7FE0, 0x0010)
_NUMBER_OF_FRAMES = key_of(0x0028, 0x0008)
_PIXEL_REPRESENTATION = key_of(0x0028, 0x0103)
_TRAILING_PADDING = key_of(0xFFFC, 0xFFFC)


class Different(Exception):
    """Two data sets differ, or it cannot be told that they do not."""


@dataclass(slots=True)
class Level:
    """A data set, sequence or item that is being read.

    Args:
        end: where it ends, or where what holds it ends.
        encoding: of its elements; of a sequence, what its items are expected to have.
        delimited: a delimitation item ends it.
        frames: Number of Frames among the elements read so far; 1 without.
        signed: what Pixel Representation among them, or around them, says; None without.
    """

    end: int
    encoding: Encoding
    delimited: bool = False
    frames: int | None = 1
    signed: bool | None = None


@dataclass(slots=True)
class Element:
    """One element; its value is at ``start``.

    Args:
        key: of the tag, see `key_of`.
        vr: None when the encoding does not say, UN included.
        start: of the value.
        length: of the value, or `UNDEFINED`.
        encoding: how it is written.
        end: of the data set or item that holds it.
    """

    key: int
    vr: str | None
    start: int
    length: int
    encoding: Encoding
    end: int

    @property
    def is_fragmented(self) -> bool:
        """Whether the value is encapsulated."""
        return self.length == UNDEFINED and self.vr in ("OB", "OW")


class Fragments:
    """Where the fragments of an encapsulated value are.

    Args:
        data: the data set.
        starts: of the fragments' bytes, that of the Basic Offset Table first.
        lengths: likewise.
    """

    def __init__(self, data: Buffer, starts: array[int], lengths: array[int]) -> None:
        self._data = data
        self._table, self._table_length = starts[0], lengths[0]
        self._starts, self._lengths = starts[1:], lengths[1:]
        self._ends = array("Q", accumulate(self._lengths))

    def ends(self) -> array[int]:
        """Where each fragment ends in the stream that they make together."""
        return self._ends

    def place(self, offset: int) -> int:
        """From a place in that stream to a place in the data set."""
        index = bisect_right(self._ends, offset)
        return self._starts[index] + offset - (self._ends[index] - self._lengths[index])

    def frame_ends(self, frames: int | None) -> array[int] | None:
        """Where each frame ends in that stream; None when it cannot be told.

        Args:
            frames: how many there are; None when that is not known.
        """
        if frames == 1:
            return self._ends[-1:]
        if frames is None:
            return None
        if len(self._ends) == frames:
            return self._ends
        if self._table_length != 4 * frames or frames > len(self._ends):
            return None
        return self._ends_by_table(frames)

    def _ends_by_table(self, frames: int) -> array[int] | None:
        table = bytes(self._data[self._table : self._table + self._table_length])
        ends = array("Q")
        before = -1
        for offset in struct.unpack(f"<{frames}I", table):
            start = self._starts[0] + offset  # offsets count from the first fragment's tag
            index = bisect_left(self._starts, start, before + 1)
            if index == len(self._starts) or self._starts[index] != start:
                return None
            if index:
                ends.append(self._ends[index - 1])
            before = index
        ends.append(self._ends[-1])
        return ends if len(ends) == frames else None


class ElementReader:
    """A data set and how far it was read.

    Every method raises `Malformed` or `struct.error` for bytes that are none.

    Attributes:
        data: the data set.
        pos: where the next element, item or value begins.
    """

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.pos = 0
        self._left = MAX_ELEMENTS

    def element(self, level: Level) -> Element | None:
        """The next element of a level, None at its end; the value is the caller's to pass.

        Group lengths and trailing padding are passed over: they say nothing about the content.

        Standard: PS3.5 7.2 (group length), PS3.10 7.2 (padding).
        """
        data, end, encoding = self.data, level.end, level.encoding
        while True:
            self._count()
            if self.pos == end and not level.delimited:
                return None
            key, vr, start, length = read_element(data, self.pos, end, encoding, final=True)
            if start > end:
                raise Malformed(f"{tag_text(key)} is cut")
            if key & 0xFFFF == 0xFFFE:
                self._delimitation(key, length, ITEM_DELIMITATION, level)
                self.pos = start
                return None
            if length != UNDEFINED:
                if start + length > end:
                    raise Malformed(f"{tag_text(key)} is longer than what holds it")
                if key == _TRAILING_PADDING or (key >> 16 == 0 and length == 4):
                    self.pos = start + length
                    continue
            if key == _NUMBER_OF_FRAMES:
                level.frames = _frames(bytes(data[start : start + min(length, 16)]))
            elif key == _PIXEL_REPRESENTATION:
                level.signed = bytes(data[start : start + min(length, 2)]) != b"\0\0"
            if encoding.explicit and vr is None:
                raise Malformed(f"{tag_text(key)} has no VR that the standard knows")
            self.pos = start
            return Element(key, None if vr == "UN" else vr, start, length, encoding, end)

    def sequence(self, element: Element) -> Level:
        """The level of an element's items.

        Standard: PS3.5 6.2.2: what a UN value holds is implicit VR little endian.
        """
        encoding = element.encoding if element.vr == "SQ" else IMPLICIT_LITTLE
        self.pos = element.start
        if element.length == UNDEFINED:
            return Level(element.end, encoding, delimited=True)
        return Level(element.start + element.length, encoding)

    def item(self, level: Level) -> Level | None:
        """The level of the next item of a sequence, None behind its last one."""
        self._count()
        if self.pos == level.end and not level.delimited:
            return None
        start, length = self._item_header(level)
        self.pos = start
        if length is None:
            return None
        encoding = encoding_of_item(self.data, start, length, level.encoding)
        if length == UNDEFINED:
            return Level(level.end, encoding, delimited=True)
        return Level(start + length, encoding)

    def fragments(self, element: Element) -> Fragments:
        """The fragments of an encapsulated value, which is passed.

        Standard: PS3.5 A.4.
        """
        level = Level(element.end, element.encoding, delimited=True)
        self.pos = element.start
        starts, lengths = array("Q"), array("Q")
        while True:
            self._count()
            start, length = self._item_header(level)
            if length is None:
                break
            if length == UNDEFINED:
                raise Malformed("a fragment has no length")
            starts.append(start)
            lengths.append(length)
            self.pos = start + length
        self.pos = start
        if not starts:
            raise Malformed("an encapsulated value has no Basic Offset Table")
        return Fragments(self.data, starts, lengths)

    def _item_header(self, level: Level) -> tuple[int, int | None]:
        """Where the next item's bytes begin and their length; None at the sequence's end."""
        key, _, start, length = read_element(
            self.data, self.pos, level.end, level.encoding, final=True
        )
        if start > level.end:
            raise Malformed("an item is cut")
        if key != ITEM:
            self._delimitation(key, length, SEQUENCE_DELIMITATION, level)
            return start, None
        if length != UNDEFINED and start + length > level.end:
            raise Malformed("an item is longer than what holds it")
        return start, length

    @staticmethod
    def _delimitation(key: int, length: int, expected: int, level: Level) -> None:
        if key != expected or length or not level.delimited:
            raise Malformed(f"{tag_text(key)} where none may be")

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"more than {MAX_ELEMENTS:,} elements")


def _frames(value: bytes) -> int | None:
    digits = value.strip(b"\0 ")
    return int(digits) if digits.isdigit() and int(digits) > 0 else None
