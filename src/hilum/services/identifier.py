"""Small data sets of attributes — identifiers of queries, headers of files — to and from bytes.

Without pydicom: a query is answered in microseconds an element. Values are texts, several with
backslashes between them; numbers are written out; sequences are tuples of items.

Standard: PS3.5 7 (encoding), 6.1 (character repertoires); PS3.4 C.4.1.1.3 (identifiers).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from hilum.errors import InvalidDicom
from hilum.services import text
from hilum.services.dictionary import dictionary_entry
from hilum.services.element_reader import Element as Place
from hilum.services.element_reader import ElementReader, Level
from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
    guess_encoding,
)
from hilum.services.inflate import Inflation, inflate
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, properties

__all__ = [
    "SPECIFIC_CHARACTER_SET",
    "Attribute",
    "Items",
    "Writer",
    "choose_character_set",
    "deflated",
    "encode_attributes",
    "is_text",
    "multiplicity",
    "padding",
    "read_attributes",
    "texts_of",
    "vr_of",
]

SPECIFIC_CHARACTER_SET = 0x00080005

MAX_DEPTH = 16
"""Sequences inside sequences of an identifier; the deepest key of PS3.4 is at the third level."""

MAX_INFLATED = 64 << 20
"""Bytes of a deflated identifier: as large as one may be that is not deflated."""


class Attribute(NamedTuple):
    """One element.

    Args:
        tag: group and element as a 32-bit number.
        vr: as encoded, or by the data dictionary; ``UN`` where neither says it.
        value: text; items of a sequence; bytes of VRs that have no text.
    """

    tag: int
    vr: str
    value: str | bytes | Items


Items: TypeAlias = tuple[tuple[Attribute, ...], ...]

_WORDS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_CODES = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_TEXTS = _WORDS | _CODES
_BINARY = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT",
                       "UV"})  # fmt: skip


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """The VR of an element by the data dictionary, the first where there are several.

    ``UN`` for private elements and unknown ones.
    """
    found = dictionary_entry(tag)
    return found[0][:2] if found is not None else "UN"


@lru_cache(maxsize=4096)
def multiplicity(tag: int) -> str:
    """The value multiplicity by the data dictionary, such as ``1-n``; "1-n" for unknown ones."""
    found = dictionary_entry(tag)
    return found[1] if found is not None else "1-n"


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def read_attributes(
    data: Buffer,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    *,
    fallback: str | None = None,
    wanted: frozenset[int] | None = None,
) -> tuple[Attribute, ...]:
    """Read a data set.

    Args:
        data: encoded in any transfer syntax; pixel data is not read.
        transfer_syntax: what it is said to be; bytes that contradict it are read as found.
        fallback: see `text.decode_text`.
        wanted: only these elements of the top level, and nothing behind the last of them.

    Raises:
        InvalidDicom: the bytes are no data set.
    """
    syntax = properties(transfer_syntax)
    if syntax.deflated:
        data, _, how = inflate(data, 0, MAX_INFLATED)
        if how is not Inflation.ENDED:
            raise InvalidDicom("the deflated data set is broken or too long")
    declared = (
        (EXPLICIT_LITTLE if syntax.little_endian else EXPLICIT_BIG)
        if syntax.explicit
        else IMPLICIT_LITTLE
    )
    if not data:
        return ()
    try:
        encoding, _ = guess_encoding(data, 0, declared, final=True)
        reading = _Reading(ElementReader(data), fallback, wanted)
        return reading.level(Level(len(data), encoding or declared), None, 0)
    except (struct.error, Malformed) as error:
        raise InvalidDicom(f"the data set cannot be read: {error}") from error


class _Reading:
    """One data set while it is read."""

    def __init__(
        self, reader: ElementReader, fallback: str | None, wanted: frozenset[int] | None
    ) -> None:
        self._reader = reader
        self._fallback = fallback
        self._wanted = wanted
        self._last = max(wanted, default=0) if wanted is not None else None

    def level(self, level: Level, charset: bytes | None, depth: int) -> tuple[Attribute, ...]:
        """The elements of a data set or an item."""
        reader = self._reader
        found: list[Attribute] = []
        while (place := reader.element(level)) is not None:
            tag = (place.key & 0xFFFF) << 16 | place.key >> 16
            if depth == 0 and self._last is not None and tag > self._last:
                break
            vr = place.vr or vr_of(tag)
            is_sequence = vr == "SQ" or (vr == "UN" and place.length == UNDEFINED)
            if tag == SPECIFIC_CHARACTER_SET:
                charset = self._bytes(place)
            if depth == 0 and self._wanted is not None and tag not in self._wanted:
                self._pass(place, level, is_sequence=is_sequence)
            elif is_sequence:
                found.append(Attribute(tag, "SQ", self._items(place, charset, depth)))
            elif place.length == UNDEFINED:
                reader.fragments(place)
            else:
                value = _value(vr, self._bytes(place), charset, self._fallback, place.encoding)
                found.append(Attribute(tag, vr, value))
                reader.pos = place.start + place.length
        return tuple(found)

    def _bytes(self, place: Place) -> bytes:
        return bytes(self._reader.data[place.start : place.start + place.length])

    def _pass(self, place: Place, level: Level, *, is_sequence: bool) -> None:
        if place.length != UNDEFINED:
            self._reader.pos = place.start + place.length
        elif is_sequence:
            self._items(place, None, 1)
        else:
            self._reader.fragments(place)

    def _items(self, place: Place, charset: bytes | None, depth: int) -> Items:
        if depth >= MAX_DEPTH:
            raise Malformed(f"sequences inside more than {MAX_DEPTH} sequences")
        sequence = self._reader.sequence(place)
        items = []
        while (item := self._reader.item(sequence)) is not None:
            items.append(self.level(item, charset, depth + 1))
        return tuple(items)


def _value(
    vr: str, raw: bytes, charset: bytes | None, fallback: str | None, encoding: Encoding
) -> str | bytes:
    if vr in _WORDS:
        if vr == "PN":
            return text.decode_person_name(raw, charset, fallback)
        return text.decode_text(raw, vr, charset, fallback)
    if vr in _CODES:
        return text.decode_text(raw, vr, None, fallback)
    order = "<" if encoding.little else ">"
    if vr == "AT":
        numbers = struct.unpack(f"{order}{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return "\\".join(f"{group:04X}{element:04X}" for group, element in pairs)
    form = _BINARY.get(vr)
    if form is None:
        return raw
    size = struct.calcsize(form)
    count = len(raw) // size
    return "\\".join(map(str, struct.unpack(f"{order}{count}{form}", raw[: count * size])))


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def choose_character_set(
    joined: str, preferred: bytes | None = None
) -> tuple[bytes, Callable[[str], bytes]]:
    """How texts that are not ASCII are written: the value of (0008,0005), and what encodes.

    The peer's own character set if it has all the characters, else Latin-1, else UTF-8.

    Standard: PS3.3 C.12.1.1.2.

    Args:
        joined: all the texts of a data set.
        preferred: raw (0008,0005) of the peer's identifier, None without.
    """
    for term in ((preferred or b"").strip(b" \0"), b"ISO_IR 100"):
        codec = text.single_codec(term)
        if codec is None or codec == "ascii":
            continue
        try:
            joined.encode(codec)
        except UnicodeEncodeError:
            continue
        return term, _encoder(codec)
    return b"ISO_IR 192", _encoder("utf_8")


@lru_cache(maxsize=64)
def _encoder(codec: str) -> Callable[[str], bytes]:
    return lambda value: value.encode(codec, "replace")


def encode_attributes(
    attributes: Iterable[Attribute],
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    *,
    preferred: bytes | None = None,
) -> bytes:
    """Write a data set, with (0008,0005) where a text is not ASCII.

    Args:
        attributes: in any order; (0008,0005) among them is replaced.
        transfer_syntax: an uncompressed one.
        preferred: see `choose_character_set`.
    """
    kept = [one for one in attributes if one.tag != SPECIFIC_CHARACTER_SET]
    joined = "".join(texts_of([kept]))
    encode: Callable[[str], bytes] = str.encode
    if not joined.isascii():
        term, encode = choose_character_set(joined, preferred)
        kept.append(Attribute(SPECIFIC_CHARACTER_SET, "CS", term.decode("ascii")))
    syntax = properties(transfer_syntax)
    writer = Writer(explicit=syntax.explicit, little_endian=syntax.little_endian)
    return deflated(writer.data_set(kept, encode), transfer_syntax)


def deflated(data: bytes, transfer_syntax: str) -> bytes:
    """The bytes as the transfer syntax wants them around the elements (PS3.5 A.5)."""
    if not properties(transfer_syntax).deflated:
        return data
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    return packed + b"\0" if len(packed) & 1 else packed


def texts_of(items: Iterable[Iterable[Attribute]]) -> Iterable[str]:
    """Every text in these data sets."""
    for item in items:
        for one in item:
            if isinstance(one.value, str):
                yield one.value
            elif isinstance(one.value, tuple):
                yield from texts_of(one.value)


def is_text(vr: str) -> bool:
    """Whether values of the VR are characters."""
    return vr in _TEXTS


class Writer:
    """Writes elements in one encoding.

    Args:
        explicit: with VR.
        little_endian: order of bytes.
    """

    def __init__(self, *, explicit: bool, little_endian: bool) -> None:
        self.explicit = explicit
        self.order = "<" if little_endian else ">"
        self._u16 = struct.Struct(self.order + "H").pack
        self._u32 = struct.Struct(self.order + "I").pack

    def head(self, tag: int, vr: str) -> bytes:
        """What stands before an element's length."""
        number = self._u16(tag >> 16) + self._u16(tag & 0xFFFF)
        if not self.explicit:
            return number
        return number + vr.encode("ascii") + (b"\0\0" if vr in _LONG_VRS else b"")

    def length(self, vr: str, length: int) -> bytes:
        """An element's length."""
        if self.explicit and vr not in _LONG_VRS:
            return self._u16(length)
        return self._u32(length)

    def longest(self, vr: str) -> int:
        """Bytes that an element's value may have."""
        return 0xFFFE if self.explicit and vr not in _LONG_VRS else 0xFFFFFFFE

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """An element; the value is padded, and cut where its length could not be written."""
        if len(value) & 1:
            value += padding(vr)
        value = value[: self.longest(vr)]
        return self.head(tag, vr) + self.length(vr, len(value)) + value

    def data_set(
        self, attributes: Iterable[Attribute], encode: Callable[[str], bytes] = str.encode
    ) -> bytes:
        """Elements in order of their tags."""
        return b"".join(
            self.element(one.tag, one.vr, self._value(one, encode))
            for one in sorted(attributes, key=lambda one: one.tag)
        )

    def _value(self, one: Attribute, encode: Callable[[str], bytes]) -> bytes:
        value = one.value
        if isinstance(value, bytes):
            return value
        if isinstance(value, tuple):
            return self.sequence(value, encode)
        if one.vr in _TEXTS:
            return encode(value)
        return self.binary(one.vr, value)

    def sequence(self, items: Items, encode: Callable[[str], bytes]) -> bytes:
        """The items of a sequence, with their lengths."""
        marker = self._u16(0xFFFE) + self._u16(0xE000)
        written = (self.data_set(item, encode) for item in items)
        return b"".join(marker + self._u32(len(item)) + item for item in written)

    def binary(self, vr: str, value: str) -> bytes:
        """The bytes of numbers that are written out; what is no number of the VR is left out."""
        parts = [part for part in value.split("\\") if part]
        try:
            if vr == "AT":
                return b"".join(
                    self._u16(int(part[:4], 16)) + self._u16(int(part[4:], 16)) for part in parts
                )
            form = _BINARY.get(vr)
            if form is None:
                return b""
            read: Callable[[str], Any] = float if form in "fd" else int
            return struct.pack(f"{self.order}{len(parts)}{form}", *map(read, parts))
        except (ValueError, struct.error, OverflowError):
            return b""


def padding(vr: str) -> bytes:
    """The byte that makes a value's length even (PS3.5 6.2)."""
    return b"\0" if vr == "UI" or vr not in _TEXTS else b" "
