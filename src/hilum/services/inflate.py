"""The beginning of a deflated data set, inflated within a limit.

Standard: PS3.5 A.5, RFC 1951.
"""

from __future__ import annotations

import zlib
from enum import Enum

from hilum.services.elements import Buffer

__all__ = ["Inflation", "inflate"]

_PIECE = 16 * 1024


class Inflation(Enum):
    """Why inflating ended."""

    ENDED = 1  # with the deflated stream
    STARVED = 2  # more input is needed
    FULL = 3  # as much came out as was asked for
    FAILED = 4  # this is no deflated stream, or not any longer


def inflate(
    data: Buffer, start: int, room: int, careful: int | None = None
) -> tuple[bytes, int, Inflation]:
    """Inflate up to `room` bytes; returns them, the bytes used for them, and why it ended.

    Args:
        careful: from here on byte by byte, because what comes out of a piece is lost when there
            is an error anywhere in it.
    """
    # PS3.5 A.5 wants bare RFC 1951; the two bytes of a zlib header (RFC 1950) are seen too.
    zlib_header = bytes(data[start : start + 2])
    wrapped = zlib_header[:1] == b"x" and int.from_bytes(zlib_header, "big") % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    out = bytearray()
    pos = start
    while not inflater.eof and pos < len(data) and len(out) < room:
        step = _PIECE if careful is None or pos < careful else 1
        piece = bytes(data[pos : pos + step])
        try:
            out += inflater.decompress(piece, room - len(out))
        except zlib.error:
            if careful is None:
                return inflate(data, start, room, pos)
            return bytes(out), pos - start, Inflation.FAILED
        pos += len(piece)
    used = pos - start - len(inflater.unconsumed_tail)
    if inflater.eof:
        return bytes(out), used, Inflation.ENDED
    full = len(out) >= room
    return bytes(out), used, Inflation.FULL if full else Inflation.STARVED
