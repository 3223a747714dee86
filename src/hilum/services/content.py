"""Whether two encoded data sets say the same, re-encoding alone not counting.

Asked when an instance arrives again with other bytes. The answer True means that either one may be
dropped without losing anything; False means "differs, or cannot be told". So nothing is ignored
but what the standard calls encoding or padding:

- explicit and implicit VR, order of bytes, deflation, defined and undefined lengths;
- group lengths (gggg,0000) and Data Set Trailing Padding (FFFC,FFFC);
- padding of values, by the rules of their VR;
- a VR that one side does not say (implicit, UN), as long as the bytes agree;
- the Basic Offset Table and, where frames stay whole, the cutting of a frame into fragments.

No attribute is ignored because it "may change with compression": Lossy Image Compression,
Photometric Interpretation, Planar Configuration and Extended Offset Table count like any other,
and so do the order of elements, the character set and the writing of numbers ("1.0" is not "1").

Both data sets are walked side by side and values compared in pieces, so memory does not grow with
them; only a deflated one is inflated as a whole, up to a limit.

Standard: PS3.5 6.2 (padding), 6.2.2 (UN), 7.5 (sequences), A.4 (encapsulation), A.5 (deflated);
PS3.10 7.2 (trailing padding).
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable
from heapq import merge
from typing import TypeAlias

from hilum.services.element_reader import (
    MAX_DEPTH,
    PIXEL_DATA,
    Different,
    Element,
    ElementReader,
    Fragments,
    Level,
)
from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Buffer,
    Encoding,
    Malformed,
)
from hilum.services.transfer_syntaxes import Compression, TransferSyntax, is_known, properties
from hilum.services.value_rules import OPAQUE_PADDING, PADDING, UNIT, Padding, shared_vr

__all__ = ["Decode", "MAX_INFLATED", "same_content"]

Decode: TypeAlias = Callable[[Buffer, str], bytes | None]
"""Data set and its transfer syntax → all frames, uncompressed, or a digest of them; None when that
cannot be had."""

MAX_INFLATED = 256 << 20
"""Bytes that a deflated data set may have when inflated; a longer one is not compared."""

_PIECE = 1 << 20  # bytes compared at once; a multiple of every value's unit
_INFLATE_PIECE = 64 * 1024
# A longer text is compared as a whole, without looking at the padding of its single values.
_MAX_SPLIT = 1 << 20
_GZIP_END = struct.Struct("<II")  # CRC and length of what was deflated, RFC 1952
_TYPE_CODES = {2: "H", 4: "I", 8: "Q"}


def same_content(
    a: Buffer,
    syntax_a: str,
    b: Buffer,
    syntax_b: str,
    *,
    decode: Decode | None = None,
) -> bool:
    """Whether two encoded data sets (without file meta) say the same.

    Never True when content differs; False as well when it cannot be told, for bytes that are no
    data set, and beyond the limits (64 levels of sequences, 2,000,000 elements, `MAX_INFLATED`).

    Standard: PS3.5 6.2, 6.2.2, 7.5, A.4, A.5.

    Args:
        a: one data set; a mapped file is read in pieces and no reference to it is kept.
        syntax_a: its Transfer Syntax UID.
        b: the other one.
        syntax_b: its Transfer Syntax UID.
        decode: called for both data sets, after everything else was found to be the same, when
            their Pixel Data is encoded in different ways of which at least one loses nothing.
            What it raises is passed on. None: such data sets differ.
    """
    try:
        if syntax_a == syntax_b and _same_bytes(a, 0, len(a), b, 0, len(b)):
            return True
        return _compare(a, syntax_a, b, syntax_b, decode)
    except (Different, Malformed, struct.error, IndexError):
        return False


def _compare(a: Buffer, syntax_a: str, b: Buffer, syntax_b: str, decode: Decode | None) -> bool:
    if syntax_a != syntax_b and not (is_known(syntax_a) and is_known(syntax_b)):
        return False
    of_a, of_b = properties(syntax_a), properties(syntax_b)
    data_a = _inflated(a) if of_a.deflated else a
    data_b = _inflated(b) if of_b.deflated else b
    comparison = _Comparison(data_a, of_a, data_b, of_b, may_decode=decode is not None)
    comparison.level(
        Level(len(data_a), encoding=_encoding(of_a)),
        Level(len(data_b), encoding=_encoding(of_b)),
        depth=0,
    )
    if not comparison.must_decode:
        return True
    assert decode is not None
    pixels = decode(a, syntax_a)
    return bool(pixels) and pixels == decode(b, syntax_b)


def _encoding(syntax: TransferSyntax) -> Encoding:
    if not syntax.explicit:
        return IMPLICIT_LITTLE
    return EXPLICIT_LITTLE if syntax.little_endian else EXPLICIT_BIG


def _inflated(data: Buffer) -> bytearray:
    """The data set in a deflated one.

    Raises:
        Different: cut, damaged, followed by anything but padding, or too long.
    """
    # PS3.5 A.5 wants bare RFC 1951; the two bytes of a zlib header (RFC 1950) are seen too.
    begin = bytes(data[:2])
    wrapped = begin[:1] == b"x" and int.from_bytes(begin, "big") % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    out = bytearray()
    pos = 0
    while not inflater.eof and len(out) <= MAX_INFLATED:
        piece = inflater.unconsumed_tail
        if not piece:
            piece = bytes(data[pos : pos + _INFLATE_PIECE])
            pos += len(piece)
        try:
            inflated = inflater.decompress(piece, _PIECE)
        except zlib.error:
            raise Different from None
        if not piece and not inflated:
            raise Different
        out += inflated
    if len(out) > MAX_INFLATED or len(data) - pos > len(_GZIP_END.pack(0, 0)):
        raise Different
    behind = inflater.unused_data + bytes(data[pos:])
    # GDCM ends the stream as gzip would.
    if behind.strip(b"\0") and behind != _GZIP_END.pack(zlib.crc32(out), len(out)):
        raise Different
    return out


class _Comparison:
    """Two data sets, walked side by side; every method raises `Different` at the first difference.

    Attributes:
        must_decode: all but the Pixel Data is the same, which only decoding can tell.
    """

    def __init__(
        self,
        a: Buffer,
        of_a: TransferSyntax,
        b: Buffer,
        of_b: TransferSyntax,
        *,
        may_decode: bool,
    ) -> None:
        self.a, self.b = ElementReader(a), ElementReader(b)
        self.of_a, self.of_b = of_a, of_b
        self.may_decode = may_decode and (_loses_nothing(of_a) or _loses_nothing(of_b))
        self.must_decode = False

    def level(self, level_a: Level, level_b: Level, *, depth: int) -> None:
        """Compare the elements of two data sets or items, and leave both readers behind them."""
        if depth > MAX_DEPTH:
            raise Different
        next_a, next_b = self.a.element, self.b.element
        while True:
            a, b = next_a(level_a), next_b(level_b)
            if a is None or b is None:
                if a is not b:
                    raise Different
                return
            if a.key != b.key:
                raise Different
            if a.key == PIXEL_DATA and depth == 0 and self.of_a.uid != self.of_b.uid:
                self.recoded_pixel_data(a, b)
            else:
                self.element(a, b, level_a, depth)

    def element(self, a: Element, b: Element, level: Level, depth: int) -> None:
        if a.is_fragmented or b.is_fragmented:
            if not (a.is_fragmented and b.is_fragmented and self.of_a.uid == self.of_b.uid):
                raise Different
            self.fragments(a, b, level)
            return
        vr = shared_vr(a.key, a.vr, b.vr, level.signed)
        if vr == "SQ" or UNDEFINED in (a.length, b.length):
            if vr not in ("SQ", None) or a.key == PIXEL_DATA:
                raise Different
            self.items(a, b, level, depth)
            return
        if not self.same_value(a, b, vr):
            raise Different
        self.a.pos, self.b.pos = a.start + a.length, b.start + b.length

    def items(self, a: Element, b: Element, level: Level, depth: int) -> None:
        level_a, level_b = self.a.sequence(a), self.b.sequence(b)
        while True:
            item_a, item_b = self.a.item(level_a), self.b.item(level_b)
            if item_a is None or item_b is None:
                if item_a is not item_b:
                    raise Different
                return
            item_a.signed = level.signed
            self.level(item_a, item_b, depth=depth + 1)

    # ── values ────────────────────────────────────────────────────────────────────────────────

    def same_value(self, a: Element, b: Element, vr: str | None) -> bool:
        padding = PADDING.get(vr or "")
        if padding is not None:
            return self.same_text(a, b, padding)
        swap_a, swap_b = _unit_to_swap(a, vr), _unit_to_swap(b, vr)
        if a.length != b.length:
            return self.same_but_padding(a, b, vr) and swap_a == swap_b == 1
        return _same_bytes(
            self.a.data, a.start, a.length, self.b.data, b.start, b.length, swap_a, swap_b
        )

    def same_text(self, a: Element, b: Element, padding: Padding) -> bool:
        if max(a.length, b.length) > _MAX_SPLIT:
            padding = Padding.END
        if padding is Padding.END:
            long_a = _length_without_padding(self.a.data, a)
            long_b = _length_without_padding(self.b.data, b)
            return _same_bytes(self.a.data, a.start, long_a, self.b.data, b.start, long_b)
        text_a = bytes(self.a.data[a.start : a.start + a.length])
        text_b = bytes(self.b.data[b.start : b.start + b.length])
        return text_a == text_b or padding.removed(text_a) == padding.removed(text_b)

    def same_but_padding(self, a: Element, b: Element, vr: str | None) -> bool:
        """Whether one is the other, of odd length, with the byte that PS3.5 7.1.1 asks for."""
        longer, reader = (a, self.a) if a.length > b.length else (b, self.b)
        odd = min(a.length, b.length)
        if longer.length - odd != 1 or not odd & 1 or (vr and vr not in OPAQUE_PADDING):
            return False
        last = reader.data[longer.start + odd]
        if last not in (OPAQUE_PADDING[vr] if vr else b"\0 "):
            return False
        return _same_bytes(self.a.data, a.start, odd, self.b.data, b.start, odd)

    # ── pixel data ────────────────────────────────────────────────────────────────────────────

    def recoded_pixel_data(self, a: Element, b: Element) -> None:
        """Top-level Pixel Data in different transfer syntaxes."""
        if not (self.of_a.encapsulated or self.of_b.encapsulated):
            if UNDEFINED in (a.length, b.length):
                raise Different
            self.element(a, b, Level(0, IMPLICIT_LITTLE), 0)
            return
        if not self.may_decode:
            raise Different
        for reader, pixels in ((self.a, a), (self.b, b)):
            if pixels.is_fragmented:
                reader.fragments(pixels)
            elif pixels.length == UNDEFINED:
                raise Different
            else:
                reader.pos = pixels.start + pixels.length
        self.must_decode = True

    def fragments(self, a: Element, b: Element, level: Level) -> None:
        """Fragments in one transfer syntax: the same bytes in the same frames.

        Standard: PS3.5 A.4.
        """
        of_a, of_b = self.a.fragments(a), self.b.fragments(b)
        frames = None
        if a.key == PIXEL_DATA:
            frames = 1 if self.of_a.video else level.frames
        frames_a, frames_b = of_a.frame_ends(frames), of_b.frame_ends(frames)
        if (frames_a is None) != (frames_b is None):
            raise Different  # which fragments make a frame is known of one of them only
        if frames_a is None:
            frames_a, frames_b = of_a.ends(), of_b.ends()
        if frames_a != frames_b or not self.same_stream(of_a, of_b):
            raise Different

    def same_stream(self, a: Fragments, b: Fragments) -> bool:
        done = 0
        for cut in merge(a.ends(), b.ends()):
            length = cut - done
            if length and not _same_bytes(
                self.a.data, a.place(done), length, self.b.data, b.place(done), length
            ):
                return False
            done = cut
        return True


def _loses_nothing(syntax: TransferSyntax) -> bool:
    if syntax.compression is Compression.LOSSLESS:
        return True
    return syntax.encapsulated and syntax.compression is Compression.NONE


def _unit_to_swap(element: Element, vr: str | None) -> int:
    """Bytes to be turned round together to get little endian; 1 for none.

    Raises:
        Different: the order of bytes of a UN value in big endian cannot be told.
    """
    if element.encoding.little:
        return 1
    if element.vr is None:
        if UNIT.get(vr or "", 1) > 1:
            raise Different
        return 1
    return UNIT.get(element.vr, 1)


def _length_without_padding(data: Buffer, element: Element) -> int:
    """Length of a text without the spaces and NULs at its end."""
    end = element.start + element.length
    while end > element.start:
        start = max(element.start, end - _PIECE)
        left = len(bytes(data[start:end]).rstrip(b"\0 "))
        if left:
            return start + left - element.start
        end = start
    return 0


def _same_bytes(
    a: Buffer,
    start_a: int,
    length_a: int,
    b: Buffer,
    start_b: int,
    length_b: int,
    swap_a: int = 1,
    swap_b: int = 1,
) -> bool:
    # Slices are copied: a memoryview would keep a mapped file from being closed, and two of them
    # are compared byte by byte.
    if length_a != length_b:
        return False
    for done in range(0, length_a, _PIECE):
        piece = min(_PIECE, length_a - done)
        piece_a = bytes(a[start_a + done : start_a + done + piece])
        piece_b = bytes(b[start_b + done : start_b + done + piece])
        if _little(piece_a, swap_a) != _little(piece_b, swap_b):
            return False
    return True


def _little(data: bytes, unit: int) -> bytes:
    if unit == 1:
        return data
    if len(data) % unit:
        raise Different
    values = array(_TYPE_CODES[unit], data)
    values.byteswap()
    return values.tobytes()
