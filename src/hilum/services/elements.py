"""Data elements in raw bytes: the encodings, one element's header, and guessing the encoding.

Everything here reads at most a few bytes at a given place. Reading past the end of the bytes
raises `struct.error`, which the scanner takes as "the data ended".

Standard: PS3.5 7.1 (data elements), 7.5 (sequences), Annex A (transfer syntaxes).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any, TypeAlias

from hilum.errors import InvalidDicom

__all__ = [
    "EXPLICIT_BIG",
    "EXPLICIT_LITTLE",
    "IMPLICIT_LITTLE",
    "ITEM",
    "ITEM_DELIMITATION",
    "LONG_VR_CODES",
    "SEQUENCE_DELIMITATION",
    "SHORT_VR_CODES",
    "UNDEFINED",
    "Buffer",
    "Encoding",
    "Malformed",
    "MoreNeeded",
    "encoding_of_item",
    "guess_encoding",
    "is_plausible_start",
    "key_of",
    "read_element",
    "tag_text",
]

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap

UNDEFINED = 0xFFFFFFFF
"""The length of a sequence, item or encapsulated value that ends with a delimitation item."""

# PS3.5 Table 7.1-2: sixteen bits of length. All other VRs have two reserved bytes and 32 bits.
_SHORT_VRS = "AEASATCSDADSDTFLFDISLOLTPNSHSLSSSTTMUIULUS"
_LONG_VRS = "OBODOFOLOVOWSQSVUCUNURUTUV"


class Malformed(InvalidDicom):
    """The bytes cannot be a data set; caught inside the scanner."""


class MoreNeeded(struct.error):
    """More bytes are needed to decide; caught inside the scanner with its parent."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are written: with VR or without, and the order of bytes."""

    name: str
    explicit: bool
    little: bool
    tag: Callable[..., tuple[Any, ...]]
    u16: Callable[..., tuple[Any, ...]]
    u32: Callable[..., tuple[Any, ...]]


def _encoding(name: str, *, explicit: bool, order: str) -> Encoding:
    # The tag's reader asks for eight bytes: no element is shorter.
    tag, u16, u32 = (struct.Struct(order + form).unpack_from for form in ("HH4x", "H", "I"))
    return Encoding(name, explicit, order == "<", tag, u16, u32)


IMPLICIT_LITTLE = _encoding("implicit little", explicit=False, order="<")
EXPLICIT_LITTLE = _encoding("explicit little", explicit=True, order="<")
EXPLICIT_BIG = _encoding("explicit big", explicit=True, order=">")
# No transfer syntax has it, but items inside explicit big endian data sets were seen with it.
_IMPLICIT_BIG = _encoding("implicit big", explicit=False, order=">")


def key_of(group: int, element: int) -> int:
    """A tag as the number that its four little-endian bytes make: the key of wanted elements."""
    return element << 16 | group


def tag_text(key: int) -> str:
    """The tag of a key as the standard writes it: ``(0008,0018)``."""
    return f"({key & 0xFFFF:04X},{key >> 16:04X})"


ITEM = key_of(0xFFFE, 0xE000)
ITEM_DELIMITATION = key_of(0xFFFE, 0xE00D)
SEQUENCE_DELIMITATION = key_of(0xFFFE, 0xE0DD)


def _codes(names: str) -> dict[int, str]:
    vrs = (names[index : index + 2] for index in range(0, len(names), 2))
    return {int.from_bytes(vr.encode("ascii"), "little"): vr for vr in vrs}


SHORT_VR_CODES = _codes(_SHORT_VRS)
"""VRs with sixteen bits of length, by the number their two bytes make in little endian."""
LONG_VR_CODES = _codes(_LONG_VRS)
"""VRs with two reserved bytes and 32 bits of length, likewise."""
_VR_CODES = SHORT_VR_CODES | LONG_VR_CODES


def read_element(
    data: Buffer, pos: int, end: int, encoding: Encoding, *, final: bool
) -> tuple[int, str | None, int, int]:
    """Read the header of the element at `pos`.

    Args:
        end: where the enclosing item or the data ends.
        final: the data will not grow.

    Returns:
        key of the tag, VR (None when implicit or unknown), start and length of the value.

    Raises:
        struct.error: the header is not whole.
        Malformed: the VR is none and no reading of it leads to a next element.
        MoreNeeded: the VR is none and the bytes do not reach to where the next element would be.
    """
    group, element = encoding.tag(data, pos)
    key = element << 16 | group
    if group == 0xFFFE or not encoding.explicit:
        return key, None, pos + 8, encoding.u32(data, pos + 4)[0]
    code = _vr_code(data, pos)
    if code in SHORT_VR_CODES:
        return key, SHORT_VR_CODES[code], pos + 8, encoding.u16(data, pos + 6)[0]
    if code in LONG_VR_CODES:
        return key, LONG_VR_CODES[code], pos + 12, encoding.u32(data, pos + 8)[0]
    start, length = _without_vr(data, pos, end, encoding, final=final)
    return key, None, start, length


def _without_vr(
    data: Buffer, pos: int, end: int, encoding: Encoding, *, final: bool
) -> tuple[int, int]:
    """Start and length of an explicit element whose VR is none: the reading a next tag confirms.

    Two capitals are a VR younger than this program, which has the long form (PS3.5 7.1.2);
    anything else is an implicit element among explicit ones. Both were also seen as short ones.
    """
    short = (pos + 8, encoding.u16(data, pos + 6)[0])
    if _two_capitals(data, pos):
        first = (pos + 12, encoding.u32(data, pos + 8)[0])
    else:
        first = (pos + 8, encoding.u32(data, pos + 4)[0])
    if first[1] == UNDEFINED:
        return first
    this = encoding.tag(data, pos)
    for start, length in (first, short):
        after = start + length
        if after == end and final:
            return start, length
        if after + 8 > len(data):
            if not final:
                raise MoreNeeded
        elif encoding.tag(data, after) > this:
            return start, length
    raise Malformed(f"{tag_text(key_of(*this))} has no VR that the standard knows")


def encoding_of_item(data: Buffer, pos: int, length: int, expected: Encoding) -> Encoding:
    """The encoding of an item's elements, from its first one.

    Items written implicitly inside explicit data sets, and explicitly inside a UN value, are
    both common enough to be read.

    Args:
        pos: where the item's first element begins.
        length: the item's length, `UNDEFINED` included.
    """
    if length < 8:
        return expected
    group, _ = expected.tag(data, pos)
    known = _vr_code(data, pos) in _VR_CODES
    if group == 0xFFFE or known == expected.explicit:
        return expected
    value_length = expected.u32(data, pos + 4)[0]
    if not expected.explicit:
        if length != UNDEFINED and 8 + value_length <= length:
            return expected  # a value so long that its length looks like a VR
        return EXPLICIT_LITTLE if expected.little else EXPLICIT_BIG
    if _two_capitals(data, pos) or 8 + value_length > length != UNDEFINED != value_length:
        return expected
    return IMPLICIT_LITTLE if expected.little else _IMPLICIT_BIG


def is_plausible_start(data: Buffer, pos: int, encoding: Encoding) -> bool:
    """Whether the first element alone shows that a data set has this (little-endian) encoding.

    True for nearly every data set that is what it is said to be; False is no verdict.
    """
    group, _ = encoding.tag(data, pos)
    if not (encoding.little and group < 0x100):
        return False
    known = _vr_code(data, pos) in _VR_CODES
    if encoding.explicit:
        return known
    return not known and bool(encoding.u32(data, pos + 4)[0] <= 0xFFFF)


def guess_encoding(
    data: Buffer, pos: int, declared: Encoding, *, final: bool
) -> tuple[Encoding | None, bool]:
    """The encoding that the first elements have: `declared` whenever they allow it.

    Returns:
        the encoding, None when the bytes are a data set in no encoding; and whether that is
        certain: with more bytes or when inflated they may turn out to be another.
    """
    possible = None
    certain = True
    for encoding in (declared, EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG):
        verdict = _first_elements_fit(data, pos, encoding, final=final)
        if verdict and (certain or final):
            return encoding, True
        if verdict is None:
            certain = False
            # Anything is an implicit element if it may be cut; only low groups begin data sets.
            if possible is None and encoding.tag(data, pos)[0] < 0x100:
                possible = encoding
    return possible, certain


def _first_elements_fit(data: Buffer, pos: int, encoding: Encoding, *, final: bool) -> bool | None:
    """Whether three elements follow each other in `encoding`; None: the bytes end before that."""
    before = (0, 0xFFFF)
    for count in range(3):
        if final and count and pos == len(data):
            return True
        if pos + 8 > len(data):
            return None
        tag = encoding.tag(data, pos)
        code = _vr_code(data, pos)
        # Read in the wrong order of bytes, tags descend soon or lengths lead beyond the end; in
        # implicit VR a length that spells a VR is over 16,000 bytes.
        if tag <= before or tag[0] >= 0xFFFE or (code in _VR_CODES) != encoding.explicit:
            return False
        before = tag
        try:
            _, _, start, length = read_element(data, pos, len(data), encoding, final=True)
        except struct.error:
            return None
        if length == UNDEFINED:
            return True
        pos = start + length
    return True


def _vr_code(data: Buffer, pos: int) -> int:
    return int(data[pos + 4] | data[pos + 5] << 8)


def _two_capitals(data: Buffer, pos: int) -> bool:
    return 0x41 <= data[pos + 4] <= 0x5A and 0x41 <= data[pos + 5] <= 0x5A
