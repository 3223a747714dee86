"""Transfer syntaxes: what each one does to a data set, and which one an acceptor chooses.

Standard: PS3.5 10, Annex A; PS3.6 Table A-1; PS3.8 9.3.3.2 (the acceptor's choice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

__all__ = [
    "ALL_TRANSFER_SYNTAXES",
    "Compression",
    "DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN",
    "EXPLICIT_VR_BIG_ENDIAN",
    "EXPLICIT_VR_LITTLE_ENDIAN",
    "IMPLICIT_VR_LITTLE_ENDIAN",
    "TRANSFER_SYNTAXES",
    "TransferSyntax",
    "choose",
    "is_known",
    "properties",
]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
"""The default, which every peer must understand. Standard: PS3.5 10.1, A.1."""
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
"""Standard: PS3.5 A.2."""
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
"""The whole data set is one deflate stream. Standard: PS3.5 A.5."""
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
"""Retired, still met in old archives. Standard: PS3.5-2016b A.3."""


class Compression(StrEnum):
    """What became of the pixel data's values.

    Standard: PS3.5 8.2, A.4.
    """

    NONE = "none"
    LOSSLESS = "lossless"
    LOSSY = "lossy"
    UNKNOWN = "unknown"  # the syntax allows both, or we do not know the syntax


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """What a transfer syntax does to a data set.

    Args:
        uid: the Transfer Syntax UID.
        name: a short name for people.
        explicit: VRs are written in the data set.
        little_endian: byte order of the data set.
        deflated: the data set as a whole is a deflate stream.
        encapsulated: Pixel Data is a sequence of fragments of undefined length.
        compression: what became of the pixel values.
        video: the frames are one video stream.
        referenced: Pixel Data is not in the data set but at a URL that it names (JPIP).

    Standard: PS3.5 Annex A.
    """

    uid: str
    name: str
    explicit: bool = True
    little_endian: bool = True
    deflated: bool = False
    encapsulated: bool = False
    compression: Compression = Compression.NONE
    video: bool = False
    referenced: bool = False


# One row per transfer syntax that an association may negotiate: the last part of the UID after
# 1.2.840.10008.1.2, flags, name. i implicit, b big endian, d deflated, e encapsulated, v video,
# r referenced; + lossless, - lossy, ? either. Rows stand in our order of preference.
# JPEG XL JPEG Recompression keeps the coefficients of a lossy JPEG: reversible, but lossy before.
# Not here, because no data set of theirs can travel in P-DATA: Papyrus 3, RFC 2557 MIME, XML
# (files or other services, retired) and SMPTE ST 2110 (real-time video, PS3.22).
_ROWS = """
.1        .    Explicit VR Little Endian
          i    Implicit VR Little Endian
.1.99     d    Deflated Explicit VR Little Endian
.2        b    Explicit VR Big Endian
.1.98     e    Encapsulated Uncompressed Explicit VR Little Endian
.4.70     e+   JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)
.4.57     e+   JPEG Lossless (Process 14)
.4.80     e+   JPEG-LS Lossless
.4.90     e+   JPEG 2000 Lossless
.4.92     e+   JPEG 2000 Part 2 Multi-component Lossless
.4.201    e+   High-Throughput JPEG 2000 Lossless
.4.202    e+   High-Throughput JPEG 2000 Lossless with RPCL
.4.110    e+   JPEG XL Lossless
.5        e+   RLE Lossless
.8.1      e+   Deflated Image Frame Compression
.4.58     e+   JPEG Lossless (Process 15)
.4.65     e+   JPEG Lossless, Hierarchical (Process 28)
.4.66     e+   JPEG Lossless, Hierarchical (Process 29)
.4.91     e?   JPEG 2000
.4.93     e?   JPEG 2000 Part 2 Multi-component
.4.203    e?   High-Throughput JPEG 2000
.4.112    e?   JPEG XL
.4.81     e-   JPEG-LS Near-Lossless
.4.50     e-   JPEG Baseline (Process 1)
.4.51     e-   JPEG Extended (Process 2 and 4)
.4.111    e-   JPEG XL JPEG Recompression
.4.52     e-   JPEG Extended (Process 3 and 5)
.4.53     e-   JPEG Spectral Selection (Process 6 and 8)
.4.54     e-   JPEG Spectral Selection (Process 7 and 9)
.4.55     e-   JPEG Full Progression (Process 10 and 12)
.4.56     e-   JPEG Full Progression (Process 11 and 13)
.4.59     e-   JPEG Extended, Hierarchical (Process 16 and 18)
.4.60     e-   JPEG Extended, Hierarchical (Process 17 and 19)
.4.61     e-   JPEG Spectral Selection, Hierarchical (Process 20 and 22)
.4.62     e-   JPEG Spectral Selection, Hierarchical (Process 21 and 23)
.4.63     e-   JPEG Full Progression, Hierarchical (Process 24 and 26)
.4.64     e-   JPEG Full Progression, Hierarchical (Process 25 and 27)
.4.100    ev-  MPEG2 Main Profile / Main Level
.4.100.1  ev-  MPEG2 Main Profile / Main Level, Fragmentable
.4.101    ev-  MPEG2 Main Profile / High Level
.4.101.1  ev-  MPEG2 Main Profile / High Level, Fragmentable
.4.102    ev-  MPEG-4 AVC/H.264 High Profile / Level 4.1
.4.102.1  ev-  MPEG-4 AVC/H.264 High Profile / Level 4.1, Fragmentable
.4.103    ev-  MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
.4.103.1  ev-  MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1, Fragmentable
.4.104    ev-  MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video
.4.104.1  ev-  MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video, Fragmentable
.4.105    ev-  MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video
.4.105.1  ev-  MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video, Fragmentable
.4.106    ev-  MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
.4.106.1  ev-  MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2, Fragmentable
.4.107    ev-  HEVC/H.265 Main Profile / Level 5.1
.4.108    ev-  HEVC/H.265 Main 10 Profile / Level 5.1
.4.94     r?   JPIP Referenced
.4.95     dr?  JPIP Referenced Deflate
.4.204    r?   JPIP HTJ2K Referenced
.4.205    dr?  JPIP HTJ2K Referenced Deflate
"""

_COMPRESSION = {"+": Compression.LOSSLESS, "-": Compression.LOSSY, "?": Compression.UNKNOWN}


def _parse(row: str) -> TransferSyntax:
    suffix, flags, name = row[:10].strip(), row[10:15].strip(), row[15:]
    return TransferSyntax(
        uid=IMPLICIT_VR_LITTLE_ENDIAN + suffix,
        name=name,
        explicit="i" not in flags,
        little_endian="b" not in flags,
        deflated="d" in flags,
        encapsulated="e" in flags,
        compression=_COMPRESSION.get(flags[-1], Compression.NONE),
        video="v" in flags,
        referenced="r" in flags,
    )


TRANSFER_SYNTAXES: Mapping[str, TransferSyntax] = MappingProxyType(
    {syntax.uid: syntax for syntax in map(_parse, _ROWS.strip("\n").splitlines())}
)
"""UID to properties, in order of preference: every syntax that an association may negotiate."""

ALL_TRANSFER_SYNTAXES: tuple[str, ...] = tuple(TRANSFER_SYNTAXES)
"""The UIDs of `TRANSFER_SYNTAXES`, in order of preference: what an acceptor takes by default."""

_DICOM_ROOT = "1.2.840.10008."
_TRANSFER_SYNTAX_ARC = "1.2.840.10008.1.2."
# MIME and XML, SMPTE ST 2110: refused even where unknown ones are allowed, see above.
_NOT_FOR_ASSOCIATIONS = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.")


def is_known(uid: str) -> bool:
    """Whether we know how this transfer syntax encodes a data set."""
    return uid in TRANSFER_SYNTAXES


def properties(uid: str) -> TransferSyntax:
    """The properties of a transfer syntax.

    An unknown or private UID is described as explicit VR little endian with encapsulated pixel
    data: what the standard demands of every compressed syntax, so of every new one so far. Ask
    `is_known` first where that guess is not good enough.

    Standard: PS3.5 A.4.
    """
    known = TRANSFER_SYNTAXES.get(uid)
    if known is not None:
        return known
    return TransferSyntax(uid, uid, encapsulated=True, compression=Compression.UNKNOWN)


def _tier(syntax: TransferSyntax) -> int:
    """Rank of the default preference: syntaxes of one tier are equals."""
    if not syntax.encapsulated and not syntax.referenced:
        return ALL_TRANSFER_SYNTAXES.index(syntax.uid)  # the four native ones, in their order
    order = (Compression.NONE, Compression.LOSSLESS, Compression.UNKNOWN, Compression.LOSSY)
    return 10 + order.index(syntax.compression) + 10 * syntax.video + 20 * syntax.referenced


_DEFAULT_RANK = {uid: _tier(syntax) for uid, syntax in TRANSFER_SYNTAXES.items()}
_UNKNOWN_RANK = 1_000_000  # after every listed one, however long the list


def _may_be_new_or_private(uid: str) -> bool:
    dotted = f"{uid}."
    if not dotted.startswith(_DICOM_ROOT):
        return bool(uid)
    return dotted.startswith(_TRANSFER_SYNTAX_ARC) and not dotted.startswith(_NOT_FOR_ASSOCIATIONS)


def choose(
    proposed: Sequence[str],
    preference: Sequence[str] | None = None,
    *,
    allow_unknown: bool = False,
) -> str | None:
    """Choose the transfer syntax of a presentation context, as its acceptor.

    The result is always one of those proposed. Among equals the one that was proposed first wins.

    Standard: PS3.8 9.3.3.2 (one transfer syntax per accepted context); PS3.5 10.1.

    Args:
        proposed: the UIDs of the context, as the requestor ordered them.
        preference: what is accepted, best first; nothing else is. None accepts all of
            `ALL_TRANSFER_SYNTAXES` in this order: Explicit VR Little Endian, Implicit VR Little
            Endian, deflated, big endian, then lossless compressions as equals, those that may be
            either, lossy ones, video, pixel data kept elsewhere (JPIP).
        allow_unknown: take a syntax that we do not know (private or new) when nothing better is
            proposed; its data sets can be kept and passed on, not necessarily read.

    Returns:
        The UID, or None when the context must be rejected (result 4, transfer syntaxes not
        supported).
    """
    if preference is None:
        rank = _DEFAULT_RANK
    else:
        # Reversed, so that of a UID that is listed twice the first place counts.
        rank = {uid: place for place, uid in reversed(list(enumerate(preference)))}

    def ranked(uid: str) -> int | None:
        if uid in rank:
            return rank[uid]
        unknown = allow_unknown and not is_known(uid) and _may_be_new_or_private(uid)
        return _UNKNOWN_RANK if unknown else None

    candidates = [(place, uid) for uid in proposed if (place := ranked(uid)) is not None]
    return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None
