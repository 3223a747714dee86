"""Bytes on their way through a conversion: a window on what comes, pieces of what goes.

Standard: PS3.5 A.5 (deflated data sets), RFC 1951.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hilum.errors import InvalidDicom
from hilum.services.element_reader import MAX_DEPTH, MAX_ELEMENTS

__all__ = ["PIECE", "ConvertLimits", "Pieces", "Window", "inflated"]

PIECE = 1 << 18
"""Bytes that are given out at once; a multiple of every unit of byte order, and even."""


@dataclass(frozen=True, slots=True)
class ConvertLimits:
    """What a conversion reads at most.

    Args:
        max_depth: sequences inside sequences.
        max_elements: elements and items in one data set.
        max_length: bytes that a deflated data set may be inflated to: 1 KB of it can be 1 MB.
    """

    max_depth: int = MAX_DEPTH
    max_elements: int = MAX_ELEMENTS
    max_length: int = 16 << 30


class Window:
    """Pieces of bytes as one stream of which the next few can be looked at.

    Attributes:
        data: what has come and was not yet taken begins in it at ``pos``.
        pos: the next byte.
        complete: nothing comes behind ``data``.
    """

    __slots__ = ("_before", "_pieces", "complete", "data", "pos")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._before = 0
        self.data = b""
        self.pos = 0
        self.complete = False

    @property
    def offset(self) -> int:
        """Bytes of the stream that were taken."""
        return self._before + self.pos

    @property
    def at_end(self) -> bool:
        """Whether everything was taken; certain after ``fill``."""
        return self.complete and self.pos >= len(self.data)

    def fill(self, count: int) -> None:
        """Have so many bytes at ``pos``, or all that there are."""
        if self.complete or len(self.data) - self.pos >= count:
            return
        parts = [self.data[self.pos :]]
        have = len(parts[0])
        while have < count:
            piece = next(self._pieces, None)
            if piece is None:
                self.complete = True
                break
            parts.append(piece)
            have += len(piece)
        self._before += self.pos
        self.data, self.pos = b"".join(parts), 0

    def skip(self, count: int) -> None:
        """Take bytes that are at ``pos``."""
        self.pos += count

    def some(self, most: int) -> bytes:
        """Take what is at hand, at least a byte; empty at the end."""
        self.fill(1)
        part = self.data[self.pos : self.pos + most]
        self.pos += len(part)
        return part

    def take(self, count: int) -> bytes:
        """Take so many bytes.

        Raises:
            struct.error: the stream ends before.
        """
        self.fill(count)
        part = self.data[self.pos : self.pos + count]
        if len(part) < count:
            raise struct.error
        self.pos += count
        return part

    def __iter__(self) -> Iterator[bytes]:
        """What was not yet taken."""
        while piece := self.some(PIECE):
            yield piece


def inflated(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Inflate a stream; what follows its end is padding.

    Raises:
        InvalidDicom: it is no deflated stream, ends within, or gives more bytes than ``most``.
    """
    inflater = None
    for piece in pieces:
        if inflater is None:
            # PS3.5 A.5 wants bare RFC 1951; the two bytes of a zlib header (RFC 1950) are seen too.
            wrapped = piece[:1] == b"x" and int.from_bytes(piece[:2], "big") % 31 == 0
            inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        while piece and not inflater.eof:
            try:
                part = inflater.decompress(piece, PIECE)
            except zlib.error:
                raise InvalidDicom("the data set is no deflated stream") from None
            most -= len(part)
            if most < 0:
                raise InvalidDicom("the data set is inflated to more bytes than are taken")
            if part:
                yield part
            piece = inflater.unconsumed_tail
    if inflater is None or not inflater.eof:
        raise InvalidDicom("the deflated data set is cut")


class Pieces:
    """Bytes that are put together into pieces of ``PIECE`` bytes.

    Args:
        deflate: what comes out is a deflated stream, of even length.
    """

    __slots__ = ("_deflater", "_length", "_parts", "_rest")

    def __init__(self, *, deflate: bool) -> None:
        self._deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS) if deflate else None
        self._parts: list[bytes] = []
        self._length = 0
        self._rest = b""

    def put(self, part: bytes) -> None:
        """Keep a few bytes."""
        self._parts.append(part)
        self._length += len(part)

    def ready(self) -> Iterator[bytes]:
        """Give out what makes whole pieces."""
        if self._length < PIECE:
            return
        data = self._joined()
        whole = len(data) - len(data) % PIECE
        self._rest = data[whole:]
        for start in range(0, whole, PIECE):
            yield data[start : start + PIECE]

    def finish(self) -> Iterator[bytes]:
        """Give out the rest."""
        data = self._joined()
        if self._deflater is not None:
            data += self._deflater.flush()
            data += b"\0" * (len(data) % 2)
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    def _joined(self) -> bytes:
        data = b"".join(self._parts)
        self._parts, self._length = [], 0
        if self._deflater is not None:
            data = self._deflater.compress(data)
        return self._rest + data
