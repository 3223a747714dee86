"""Data sets from one uncompressed transfer syntax into another, as streams.

The data set is read once, from front to back, in pieces as they come, and written in pieces: an
object of any size takes no more memory than a small one. Values keep their bytes but for the order
that the transfer syntax gives them. Private elements keep their VR; where none was written they
become UN. Sequences and items are written with undefined length, group lengths are left out.

Standard: PS3.5 6.2.2 (UN), 7.1 to 7.5, 7.8 (private elements), Annex A; PS3.5-2016b A.3.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from hilum.errors import InvalidDicom
from hilum.services.convert_stream import PIECE, ConvertLimits, Pieces, Window, inflated
from hilum.services.dictionary import dictionary_vr
from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED,
    Encoding,
    MoreNeeded,
    encoding_of_item,
    guess_encoding,
    is_plausible_start,
    key_of,
    read_element,
    tag_text,
)
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from hilum.services.value_rules import UNIT

__all__ = ["CONVERTIBLE", "ConvertLimits", "Encapsulated", "LeaveOut", "convert", "convert_bytes"]

_ENCODINGS = {
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
}

CONVERTIBLE: frozenset[str] = frozenset(_ENCODINGS)
"""The transfer syntaxes that are converted into each other; nothing of an image is lost by it."""

LeaveOut = Callable[[int, tuple[int, ...]], bool]
"""Whether an element is left out, by its tag as a 32-bit number and those of the sequences it is in."""

# PS3.5 Table 7.1-1: two reserved bytes and a length of 32 bits; every other VR has 16 bits.
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT",
                       "UV"})  # fmt: skip
_LOOKED_AT = 4096
"""Bytes that tell in which encoding a data set begins: three elements, all but always."""
_ARRAYS = {2: "H", 4: "I", 8: "Q"}

_BITS_ALLOCATED = key_of(0x0028, 0x0100)
_PIXEL_REPRESENTATION = key_of(0x0028, 0x0103)
_WAVEFORM_BITS_ALLOCATED = key_of(0x5400, 0x1004)
_PIXEL_DATA = key_of(0x7FE0, 0x0010)
_WAVEFORM_DATA = key_of(0x5400, 0x1010)
_WATCHED = {
    _BITS_ALLOCATED: "bits",
    _PIXEL_REPRESENTATION: "signed",
    _WAVEFORM_BITS_ALLOCATED: "waveform_bits",
}


class Encapsulated(InvalidDicom):
    """A value is encapsulated, which no uncompressed transfer syntax allows."""


@dataclass(slots=True)
class _Level:
    """An open data set, sequence or item.

    Args:
        source: how it is written; of a sequence, how its items are expected to be.
        target: how it is going to be written.
        end: where it ends in the source; None when a delimitation item, or the data's end, says.
        is_sequence: items are expected in it.
        bits: Bits Allocated of it or of what holds it; 0 when it was not met.
        signed: Pixel Representation, likewise.
        waveform_bits: Waveform Bits Allocated, likewise.
        within: tags of the sequences that it is in, itself included, from the outermost.
    """

    source: Encoding
    target: Encoding
    end: int | None = None
    is_sequence: bool = False
    bits: int = 0
    signed: int = 0
    waveform_bits: int = 0
    within: tuple[int, ...] = ()

    def inner(self, source: Encoding, end: int | None, *, is_sequence: bool) -> _Level:
        """A sequence or item in this level."""
        return _Level(
            source,
            self.target,
            end,
            is_sequence,
            self.bits,
            self.signed,
            self.waveform_bits,
            self.within,
        )


def convert(
    pieces: Iterable[bytes],
    source: str,
    target: str,
    *,
    limits: ConvertLimits | None = None,
    leave_out: LeaveOut | None = None,
    keep_encapsulated: bool = False,
) -> Iterator[bytes]:
    """Convert a data set.

    A data set that is not encoded as it is said to be is read as what it is. Where an element's
    VR is not written, the data dictionary says it; private elements without one become UN. A
    value too long for the 16-bit length of its VR becomes UN too.

    Standard: PS3.5 Annex A, 6.2.2.

    Args:
        pieces: the data set without file meta, cut anywhere.
        source: its transfer syntax, one of `CONVERTIBLE`.
        target: the transfer syntax wanted, likewise.
        limits: of what is read; None for the defaults.
        leave_out: elements that are not to be in the new data set; None for none.
        keep_encapsulated: encapsulated values go through: the data set is in a compressed transfer
            syntax, and stays in it. Both syntaxes are Explicit VR Little Endian then.

    Returns:
        Pieces of ``PIECE`` bytes, the last one shorter.

    Raises:
        InvalidDicom: while iterating: the bytes are no such data set, end within it, go over a
            limit, or hold encapsulated pixel data (``Encapsulated``). What was given out until then
            is no data set.
        KeyError: at once: a transfer syntax that is not in `CONVERTIBLE`.
    """
    encodings = _ENCODINGS[source], _ENCODINGS[target]
    return _convert(
        pieces, source, target, *encodings, limits or ConvertLimits(), leave_out, keep_encapsulated
    )


def convert_bytes(
    data: bytes, source: str, target: str, *, limits: ConvertLimits | None = None
) -> bytes:
    """Convert a data set in memory. See `convert`."""
    return b"".join(convert((data,), source, target, limits=limits))


def _convert(
    pieces: Iterable[bytes],
    source: str,
    target: str,
    declared: Encoding,
    wanted: Encoding,
    limits: ConvertLimits,
    leave_out: LeaveOut | None,
    keep_encapsulated: bool,
) -> Iterator[bytes]:
    window = Window(pieces)
    out = Pieces(deflate=target == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    window.fill(_LOOKED_AT)
    found = None
    if not window.at_end:
        found = _first_element(window, declared)
        if found is None and source != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            found = _first_elements(window, declared)
        if found is None:
            # As it should be, or one that is said to be a native one and is not.
            window = Window(inflated(window, limits.max_length))
            window.fill(_LOOKED_AT)
            found = _first_element(window, declared) or _first_elements(window, declared)
            if found is None and not window.at_end:
                raise InvalidDicom("the first bytes are no data element in any encoding")
    found = found or declared
    try:
        if found is wanted and leave_out is None:
            for piece in window:
                out.put(piece)
                yield from out.ready()
        else:
            top = _Level(found, wanted)
            yield from _Conversion(window, out, top, limits, leave_out, keep_encapsulated).run()
    except struct.error:
        raise InvalidDicom("the data set ends in the middle of an element") from None
    yield from out.finish()


def _first_element(window: Window, declared: Encoding) -> Encoding | None:
    """The encoding that the first element alone shows."""
    for encoding in (declared, EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        with suppress(struct.error):
            if is_plausible_start(window.data, window.pos, encoding):
                return encoding
    return None


def _first_elements(window: Window, declared: Encoding) -> Encoding | None:
    """The encoding that the first elements show; None when they are in none."""
    with suppress(struct.error):
        return guess_encoding(window.data, window.pos, declared, final=window.complete)[0]
    return None


class _Conversion:
    """One data set on its way from one encoding into another."""

    def __init__(
        self,
        window: Window,
        out: Pieces,
        top: _Level,
        limits: ConvertLimits,
        leave_out: LeaveOut | None,
        keep_encapsulated: bool,
    ) -> None:
        self._leave_out = leave_out
        self._keep_encapsulated = keep_encapsulated
        self._window = window
        self._out = out
        self._stack = [top]
        self._limits = limits
        self._left = limits.max_elements

    def run(self) -> Iterator[bytes]:
        """Pieces of the new data set."""
        window, stack, out = self._window, self._stack, self._out
        while True:
            level = stack[-1]
            window.fill(12)
            if level.end is not None and window.offset >= level.end:
                self._close(level)
                continue
            if window.at_end:
                break
            self._left -= 1
            if self._left < 0:
                raise InvalidDicom(f"more than {self._limits.max_elements:,} elements")
            if level.is_sequence:
                self._item(level)
            else:
                yield from self._element(level)
            yield from out.ready()
        if len(stack) > 1:
            raise InvalidDicom("the data set ends within a sequence")

    # ── elements ────────────────────────────────────────────────────────────────────────────

    def _element(self, level: _Level) -> Iterator[bytes]:
        window, encoding = self._window, level.source
        key, vr, start, length = self._header(encoding)
        if key & 0xFFFF == 0xFFFE:
            self._delimitation(level, key, start)
            return
        window.skip(start - window.pos)
        self._must_fit(level, key, length)
        if vr is None:
            vr = _vr(key, length, level)
        if self._leave_out is not None and self._leave_out(_tag(key), level.within):
            yield from self._pass(level, key, vr, length)
        elif length == UNDEFINED and vr not in ("SQ", "UN") and self._keep_encapsulated:
            self._out.put(_header(level.target, key, vr, UNDEFINED))
            yield from self._fragments(level, kept=True)
        elif vr == "SQ" or length == UNDEFINED:
            self._open_sequence(level, key, vr, length)
        elif key >> 16 == 0 and length == 4:
            window.take(length)  # a group length: what it says is no longer so
        elif length > PIECE:
            yield from self._long_value(level, key, vr, length)
        else:
            value = window.take(length)
            if key in _WATCHED and length == 2:
                setattr(level, _WATCHED[key], encoding.u16(value, 0)[0])
            written = _written_vr(vr, length, level.target)
            self._out.put(_header(level.target, key, written, length))
            self._out.put(_ordered(value, _unit(written, level)))

    def _header(self, encoding: Encoding) -> tuple[int, str | None, int, int]:
        window = self._window
        try:
            return read_element(
                window.data, window.pos, len(window.data), encoding, final=window.complete
            )
        except MoreNeeded:
            # The VR is none; what follows the element tells how it is to be read.
            window.fill(PIECE)
        return read_element(
            window.data, window.pos, len(window.data), encoding, final=window.complete
        )

    def _long_value(self, level: _Level, key: int, vr: str, length: int) -> Iterator[bytes]:
        written = _written_vr(vr, length, level.target)
        unit = _unit(written, level)
        self._out.put(_header(level.target, key, written, length))
        while length:
            piece = self._window.take(min(PIECE, length))  # a multiple of every unit
            length -= len(piece)
            self._out.put(_ordered(piece, unit))
            yield from self._out.ready()

    def _pass(self, level: _Level, key: int, vr: str, length: int) -> Iterator[bytes]:
        """A value that is left out."""
        if length == UNDEFINED:
            if vr in ("SQ", "UN"):
                raise InvalidDicom(f"{tag_text(key)} is a sequence, where a value was expected")
            yield from self._fragments(level, kept=False)
        while length not in (0, UNDEFINED):
            length -= len(self._window.take(min(PIECE, length)))

    def _fragments(self, level: _Level, *, kept: bool) -> Iterator[bytes]:
        """An encapsulated value. Standard: PS3.5 A.4."""
        window, put = self._window, self._out.put if kept else lambda part: None
        while True:
            window.fill(8)
            group, element = level.source.tag(window.data, window.pos)
            key, length = key_of(group, element), level.source.u32(window.data, window.pos + 4)[0]
            window.skip(8)
            self._left -= 1
            if key not in (ITEM, SEQUENCE_DELIMITATION) or length == UNDEFINED or self._left < 0:
                raise InvalidDicom(f"{tag_text(key)} stands where a fragment was expected")
            put(_mark(level.target, key, length))
            if key == SEQUENCE_DELIMITATION:
                return
            while length:
                piece = window.take(min(PIECE, length))
                length -= len(piece)
                put(piece)
                yield from self._out.ready()

    def _must_fit(self, level: _Level, key: int, length: int) -> None:
        if level.end is None or length == UNDEFINED:
            return
        if self._window.offset + length > level.end:
            raise InvalidDicom(f"{tag_text(key)} is longer than the item it is in")

    # ── sequences and items ─────────────────────────────────────────────────────────────────

    def _open_sequence(self, level: _Level, key: int, vr: str, length: int) -> None:
        if vr not in ("SQ", "UN"):
            raise Encapsulated(
                f"{tag_text(key)} is encapsulated, which no uncompressed transfer syntax allows"
            )
        if length == 0:
            self._out.put(_header(level.target, key, "SQ", 0))
            return
        self._out.put(_header(level.target, key, vr, UNDEFINED))
        end = None if length == UNDEFINED else self._window.offset + length
        inner = level.inner(level.source, end, is_sequence=True)
        inner.within = (*level.within, _tag(key))
        if vr == "UN":  # PS3.5 6.2.2: whatever holds it, implicit VR little endian is in it
            inner.source = inner.target = IMPLICIT_LITTLE
        self._open(inner)

    def _open(self, level: _Level) -> None:
        if len(self._stack) > 2 * self._limits.max_depth:
            raise InvalidDicom(f"sequences nested deeper than {self._limits.max_depth}")
        self._stack.append(level)

    def _item(self, level: _Level) -> None:
        window = self._window
        group, element = level.source.tag(window.data, window.pos)
        key, length = key_of(group, element), level.source.u32(window.data, window.pos + 4)[0]
        window.skip(8)
        if key == SEQUENCE_DELIMITATION and level.end is None:
            self._close(level)
            return
        if key in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):
            return  # superfluous
        if key != ITEM:
            raise InvalidDicom(f"{tag_text(key)} stands where an item was expected")
        self._must_fit(level, key, length)
        window.fill(16)
        encoding = level.source
        if length:
            encoding = encoding_of_item(window.data, window.pos, length, encoding)
        end = None if length == UNDEFINED else window.offset + length
        self._out.put(_mark(level.target, ITEM, UNDEFINED))
        self._open(level.inner(encoding, end, is_sequence=False))

    def _delimitation(self, level: _Level, key: int, start: int) -> None:
        """An item or delimitation item where an element was expected."""
        window, top = self._window, len(self._stack) == 1
        if level.end is None and not top:
            if key == ITEM_DELIMITATION:
                window.skip(start - window.pos)
            # An item or the sequence's end: the item's own delimitation was forgotten.
            self._close(level)
        elif key == ITEM:
            raise InvalidDicom(f"{tag_text(key)} stands where a data element was expected")
        else:
            window.skip(start - window.pos)  # superfluous

    def _close(self, level: _Level) -> None:
        self._stack.pop()
        key = SEQUENCE_DELIMITATION if level.is_sequence else ITEM_DELIMITATION
        self._out.put(_mark(level.target, key, 0))


def _tag(key: int) -> int:
    """A tag as a 32-bit number, in the order of tags."""
    return (key & 0xFFFF) << 16 | key >> 16


def _vr(key: int, length: int, level: _Level) -> str:
    """The VR of an element that was written without one.

    Standard: PS3.5 A.1 (OW), 6.2.2 (private elements), 7.8.1 (private creators).
    """
    group, element = key & 0xFFFF, key >> 16
    if element == 0:
        return "UL"
    if group & 1:
        if 0x10 <= element <= 0xFF:
            return "LO"
        # Of undefined length without VR can only be a sequence.
        return "SQ" if length == UNDEFINED else "UN"
    try:
        vr = dictionary_vr(group << 16 | element)
    except KeyError:
        return "SQ" if length == UNDEFINED else "UN"
    return vr if len(vr) == 2 else _one_of(vr, key, length, level)


def _one_of(vrs: str, key: int, length: int, level: _Level) -> str:
    """The VR of an element that the dictionary gives more than one."""
    if key == _PIXEL_DATA:
        return "OB" if 0 < level.bits <= 8 else "OW"
    if key == _WAVEFORM_DATA:
        return "OB" if 0 < level.waveform_bits <= 8 else "OW"
    if "OW" in vrs and (length > 2 or "US" not in vrs):
        return "OW"
    return "SS" if "SS" in vrs and level.signed else "US"


def _written_vr(vr: str, length: int, target: Encoding) -> str:
    return "UN" if target.explicit and length > 0xFFFF and vr not in _LONG_VRS else vr


def _unit(vr: str, level: _Level) -> int:
    """Bytes that change places together on the way; 1 when the order stays."""
    return 1 if level.source.little == level.target.little else UNIT.get(vr, 1)


def _ordered(value: bytes, unit: int) -> bytes:
    if unit == 1:
        return value
    whole = len(value) - len(value) % unit
    words = array(_ARRAYS[unit], value[:whole])
    words.byteswap()
    return words.tobytes() + value[whole:]


def _header(target: Encoding, key: int, vr: str, length: int) -> bytes:
    order, group, element = "<" if target.little else ">", key & 0xFFFF, key >> 16
    if not target.explicit:
        return struct.pack(f"{order}HHI", group, element, length)
    if vr in _LONG_VRS:
        return struct.pack(f"{order}HH2s2xI", group, element, vr.encode("ascii"), length)
    return struct.pack(f"{order}HH2sH", group, element, vr.encode("ascii"), length)


def _mark(target: Encoding, key: int, length: int) -> bytes:
    order = "<" if target.little else ">"
    return struct.pack(f"{order}HHI", key & 0xFFFF, key >> 16, length)
