"""Which elements are bulk data, that a retrieval without them leaves out.

Standard: PS3.4 Z.1.3, Table Z.1-1.
"""

from __future__ import annotations

__all__ = ["is_bulk_data"]

_ELEMENTS = frozenset(
    {
        0x00287FE0,  # Pixel Data Provider URL
        0x00420011,  # Encapsulated Document
        0x56000020,  # Spectroscopy Data
        0x7FE00008,  # Float Pixel Data
        0x7FE00009,  # Double Float Pixel Data
        0x7FE00010,  # Pixel Data
    }
)
_WAVEFORM_SEQUENCE, _WAVEFORM_DATA = 0x54000100, 0x54001010
# Curves and overlays: the group is one of sixteen, or of 128 in old objects, all even.
_REPEATING = frozenset(
    {
        0x5000200C,  # Audio Sample Data
        0x50003000,  # Curve Data
        0x60003000,  # Overlay Data
    }
)


def is_bulk_data(tag: int, within: tuple[int, ...] = ()) -> bool:
    """Whether an element, by its tag as a 32-bit number, is bulk data.

    What is inside sequences is none, such as the pixel data of icons; but for waveforms.

    Standard: PS3.4 Z.1.3, Table Z.1-1; PS3.5 7.6 (repeating groups).

    Args:
        tag: of the element.
        within: tags of the sequences that it is in, from the outermost.
    """
    if within:
        return tag == _WAVEFORM_DATA and within == (_WAVEFORM_SEQUENCE,)
    return tag in _ELEMENTS or (tag & 0xFF00FFFF in _REPEATING and not tag & 0x00010000)
