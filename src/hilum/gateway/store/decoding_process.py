"""The process that decodes images for those who take no compressed ones; see ``decoding``.

A codec reads bytes of unknown origin in C: here it can do no more than end this process. A request
is a ``HEAD`` with the lengths of what follows, transfer syntax and data set; answers are frames:
``NEED`` with the bytes that the whole will have at most, to which one byte is the permission to go
on; ``DATA``, ``END``; or ``FAILED`` with the reason.

Standard: PS3.5 8.2, A.4; PS3.3 C.7.6.3.1.2 (Photometric Interpretation).
"""

from __future__ import annotations

import io
import itertools
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from hilum.errors import InvalidDicom
from hilum.gateway.store.child import end_when_idle, limit, limit_time
from hilum.services.decompress import (
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    Decoded,
    decompress,
)
from hilum.services.elements import Buffer
from hilum.services.transfer_syntaxes import TRANSFER_SYNTAXES

__all__ = [
    "DATA",
    "DECODED",
    "END",
    "FAILED",
    "FRAME",
    "GIVE_UP",
    "GO_ON",
    "HEAD",
    "ICONS",
    "LONGEST_REASON",
    "NEED",
    "decoded_by_what_is_installed",
    "main",
]

HEAD = struct.Struct(">HQ")
FRAME = struct.Struct(">cI")
NEED, DATA, END, FAILED = b"N", b"D", b"E", b"F"
GO_ON, GIVE_UP = b"y", b"n"

# Pixel data inside sequences, beside as many bytes as the compressed data set has.
ICONS = 1 << 20
LONGEST_REASON = 200

_LOSSY_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51))
DECODED = _LOSSY_JPEG | frozenset(
    "1.2.840.10008.1.2" + tail
    for tail in (".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.201", ".4.202",
                 ".4.203", ".5")
)  # fmt: skip
"""Transfer syntaxes that are decoded where ``hilum[codecs]`` is installed."""


def decoded_by_what_is_installed() -> frozenset[str]:
    """Those of `DECODED` that have a codec here; imports pydicom."""
    from pydicom.pixels.decoders.base import get_decoder

    return frozenset(uid for uid in DECODED if get_decoder(uid).is_available)


def decode(data: bytes, transfer_syntax: str) -> Decoded:
    """The pixel data of a data set or item, whose frames are decoded as they are asked for.

    Lossy JPEG in YBR becomes RGB, as every viewer would make it; of what was compressed without
    loss every bit stays, those beside Bits Stored included.

    Raises:
        InvalidDicom: no codec is installed, or what the data set says of its pixels cannot be.
    """
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder

    from hilum.services.part10 import encode_head

    if not get_decoder(transfer_syntax).is_available:
        name = TRANSFER_SYNTAXES[transfer_syntax].name
        raise InvalidDicom(f"no codec of {name} is installed: pip install 'hilum[codecs]'")
    # The UIDs of the head are nobody's: only the transfer syntax is looked at.
    file = dcmread(io.BytesIO(encode_head("1.2", "1.2", transfer_syntax) + data))
    bits, samples = file.get("BitsAllocated"), file.get("SamplesPerPixel")
    rows, columns = file.get("Rows"), file.get("Columns")
    frames = int(file.get("NumberOfFrames") or 1)
    if not (samples and rows and columns and frames > 0):
        raise InvalidDicom("the data set does not say how large its image is")
    if bits not in (8, 16, 32, 64):
        raise InvalidDicom(f"Bits Allocated is {bits}; 8, 16, 32 or 64 can be decoded")
    size = rows * columns * samples * (bits // 8)
    decoded = _frames(file, transfer_syntax in _LOSSY_JPEG, size, frames)
    return Decoded(frames * size, bits, decoded, _changed(file, transfer_syntax))


def _changed(file: Any, transfer_syntax: str) -> dict[int, str | int]:
    said = str(file.get("PhotometricInterpretation", ""))
    after = said
    if said in ("YBR_FULL", "YBR_FULL_422"):  # full samples are what a codec gives
        after = "RGB" if transfer_syntax in _LOSSY_JPEG else "YBR_FULL"
    elif said in ("YBR_ICT", "YBR_RCT"):  # JPEG 2000 takes its component transformations back
        after = "RGB"
    changed: dict[int, str | int] = {}
    if after != said:
        changed[PHOTOMETRIC_INTERPRETATION] = after
    if file.SamplesPerPixel > 1 and file.get("PlanarConfiguration") != 0:
        changed[PLANAR_CONFIGURATION] = 0
    return changed


def _frames(file: Any, to_rgb: bool, size: int, frames: int) -> Iterator[Buffer]:
    import numpy

    kind = numpy.dtype(
        f"<{'i' if file.get('PixelRepresentation') else 'u'}{file.BitsAllocated // 8}"
    )
    number = 0
    for frame in _decoded(file, raw=not to_rgb):
        number += 1
        if frame.dtype.itemsize > kind.itemsize:
            raise InvalidDicom(f"values of {8 * frame.dtype.itemsize} bits were decoded")
        # A view of what may have more than two dimensions, as plain bytes.
        values = numpy.ascontiguousarray(frame.astype(kind, copy=False)).reshape(-1)
        if values.nbytes != size:
            raise InvalidDicom(f"a frame has {values.nbytes:,} bytes, expected {size:,}")
        yield values.view(numpy.uint8).data
    if number != frames:
        raise InvalidDicom(f"{number} frames were decoded of {frames}")


def _decoded(file: Any, *, raw: bool) -> Iterator[Any]:
    """What a codec gives; what it complains of is told, as it has seen nothing but pixel data."""
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(file.file_meta.TransferSyntaxUID)
    # Of JPEG 2000 whose signedness is another than the data set's, pydicom 3.0 can correct frames
    # that are asked for by number only; in order they are found faster.
    orders: list[dict[str, Any]] = [{}, {"indices": range(int(file.get("NumberOfFrames") or 1))}]
    number = 0
    while True:
        try:
            for frame, _ in decoder.iter_array(
                file, raw=raw, correct_unused_bits=False, **orders.pop(0)
            ):
                number += 1
                yield frame
            return
        except (
            ArithmeticError,
            LookupError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if number or not orders:
                reason = " ".join(str(error).split())
                raise InvalidDicom(f"the pixel data cannot be decoded: {reason}") from error


class _Refused(Exception):
    """The parent has no room for it, and says so itself."""


def _answer(data: bytes, transfer_syntax: str) -> Iterator[tuple[bytes, Buffer]]:
    """The frames that answer one request, but the last."""
    need = len(data) + ICONS

    def asked(part: bytes) -> Decoded:
        nonlocal need
        decoded = decode(part, transfer_syntax)
        need += decoded.length
        return decoded

    pieces = decompress(data, asked)
    first = next(pieces)  # by now the image's size is known, and nothing is decoded yet
    yield NEED, struct.pack(">Q", need)
    for piece in itertools.chain((first,), pieces):
        yield DATA, piece


def _told(error: Exception) -> bytes:
    """The reason; of what is not ours its kind alone, as it may quote the data set."""
    said = str(error) if isinstance(error, InvalidDicom) else type(error).__name__
    return ascii(said)[1:-1][:LONGEST_REASON].encode("ascii")


def _send(answers: BinaryIO, kind: bytes, payload: Buffer) -> None:
    answers.write(FRAME.pack(kind, len(payload)))
    answers.write(payload)
    answers.flush()


def main() -> None:
    """Answer requests until standard input ends; the argument is the seconds that each may take."""
    import pydicom.pixels.decoders.base  # noqa: F401 - before the first request's time runs

    limit()
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    idle = end_when_idle()
    while len(head := asked.read(HEAD.size)) == HEAD.size:
        idle.cancel()
        syntax_length, length = HEAD.unpack(head)
        syntax = asked.read(syntax_length).decode("ascii", "replace")
        data = asked.read(length)
        limit_time(float(sys.argv[1]))
        try:
            for kind, payload in _answer(data, syntax):
                _send(answers, kind, payload)
                if kind == NEED and asked.read(1) != GO_ON:
                    raise _Refused
            _send(answers, END, b"")
        except _Refused:
            pass
        except MemoryError:
            _send(answers, FAILED, b"it takes more memory than its limit")
            return  # what is left of it may be in pieces
        except Exception as error:  # whatever a codec or a data set makes of it
            _send(answers, FAILED, _told(error))
        del data
        idle = end_when_idle()


if __name__ == "__main__":
    main()
