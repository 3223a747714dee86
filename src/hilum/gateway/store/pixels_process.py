"""The process that decodes pixel data; ``pixels.PixelDigests`` starts it and may kill it.

A codec reads bytes of unknown origin in C: here it can do no more than end this process. A request
on standard input is a ``HEAD`` with the lengths of what follows, transfer syntax and data set; the
answer on standard output is a digest, zeros where it cannot be had. The process ends with its
standard input, and by itself when nothing is asked for a while.

Standard: PS3.5 8.1 (native pixel data), 8.2 and A.4 (encapsulated).
"""

from __future__ import annotations

import hashlib
import io
import struct
import sys
from collections.abc import Iterator
from typing import Any

from hilum.gateway.store.child import end_when_idle, limit, limit_time

__all__ = ["ANSWER", "HEAD", "NONE", "digest", "main"]

HEAD = struct.Struct(">HQ")
ANSWER = 32
NONE = bytes(ANSWER)

# Seconds of work for one digest; whoever asked has lost his patience before.
LONGEST = 60.0

# Bytes of all frames together that are worth a comparison.
MAX_PIXELS = 1 << 30

# Those of which the standard says that no value changes. JPEG 2000 and JPEG XL may, HTJ2K too.
_REVERSIBLE = frozenset(
    "1.2.840.10008.1.2" + tail
    for tail in ("", ".1", ".1.99", ".1.98", ".4.57", ".4.70", ".4.80", ".4.90", ".4.201",
                 ".4.202", ".5", ".8.1")
)  # fmt: skip


def digest(data: bytes, transfer_syntax: str) -> bytes | None:
    """What equal images have in common: a digest of all frames, colour by pixel, little endian.

    None where they cannot be decoded without loss, or not at all.
    """
    from pydicom import dcmread

    from hilum.services.part10 import encode_head

    # The UIDs of the head are nobody's: only the transfer syntax is looked at.
    head = encode_head("1.2", "1.2", transfer_syntax)
    file = dcmread(io.BytesIO(head + data))
    syntax = file.file_meta.TransferSyntaxUID
    bits, samples = file.BitsAllocated, file.SamplesPerPixel
    shape = (file.Rows, file.Columns, samples)
    frames = int(file.get("NumberOfFrames") or 1)
    size = frames * file.Rows * file.Columns * samples * (bits // 8)
    if syntax not in _REVERSIBLE or bits not in (8, 16, 32) or not 0 < size <= MAX_PIXELS:
        return None
    found = hashlib.sha256()
    read = 0
    for frame in _encapsulated(file) if syntax.is_encapsulated else _native(file, frames, shape):
        if frame.size != file.Rows * file.Columns * samples:
            return None
        found.update(frame.astype(f"<u{bits // 8}").tobytes())
        read += 1
    return found.digest() if read == frames else None


def _encapsulated(file: Any) -> Iterator[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(file.file_meta.TransferSyntaxUID)
    for frame, _ in decoder.iter_array(file, raw=True, correct_unused_bits=False):
        yield frame


def _native(file: Any, frames: int, shape: tuple[int, int, int]) -> Iterator[Any]:
    """The frames as they stand, unused high bits included: those may hold an overlay."""
    import numpy

    rows, columns, samples = shape
    values = numpy.frombuffer(file.PixelData, f"<u{file.BitsAllocated // 8}")
    length = rows * columns * samples
    if len(values) < frames * length:
        return
    by_plane = samples > 1 and file.get("PlanarConfiguration") == 1
    for start in range(0, frames * length, length):
        frame = values[start : start + length]
        if by_plane:
            frame = frame.reshape(samples, rows, columns).transpose(1, 2, 0)
        yield frame


def main() -> None:
    """Answer requests until standard input ends."""
    import pydicom.pixels.decoders.base  # noqa: F401 - before the first request's time runs

    limit()
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    idle = end_when_idle()
    while len(head := asked.read(HEAD.size)) == HEAD.size:
        idle.cancel()
        syntax_length, length = HEAD.unpack(head)
        syntax = asked.read(syntax_length).decode("ascii", "replace")
        limit_time(LONGEST)
        try:
            found = digest(asked.read(length), syntax)
        except Exception:  # whatever a codec or a data set makes of it: it cannot be had
            found = None
        answers.write(found or NONE)
        answers.flush()
        idle = end_when_idle()


if __name__ == "__main__":
    main()
