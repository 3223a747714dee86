"""What in a value is encoding and not content: padding, order of bytes, and a VR left unsaid.

Standard: PS3.5 6.2 (Table 6.2-1), 6.2.2 (UN), 7.3 (byte order), 7.8.1 (private creators).
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from hilum.services.dictionary import dictionary_vr
from hilum.services.element_reader import Different

__all__ = ["OPAQUE_PADDING", "PADDING", "UNIT", "Padding", "shared_vr"]

UNIT: dict[str, int] = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
"""Bytes that change places together in big endian."""

OPAQUE_PADDING: dict[str, bytes] = {"OB": b"\0", "OW": b"\0"}
"""The byte that makes a binary value's length even."""


class Padding(Enum):
    """Which spaces of a text are no content. NULs are taken for spaces: no text may hold them."""

    END = 1
    """At the end of the whole value."""
    EACH_END = 2
    """At the end of every value.

    A backslash may be half of a character in GBK, but never right behind a space.
    """
    AROUND_EACH = 3
    """Before and after every value; only for VRs that hold no other characters than ASCII."""

    def removed(self, text: bytes) -> bytes:
        """The text without the padding of its values; one of `END` is not split into values."""
        values = [value.rstrip(b"\0 ") for value in text.split(b"\\")]
        if self is Padding.AROUND_EACH:
            values = [value.lstrip(b" ") for value in values]
        return b"\\".join(values)


PADDING: dict[str, Padding] = (
    dict.fromkeys(("LT", "ST", "UR", "UT"), Padding.END)
    | dict.fromkeys(("AS", "DA", "DT", "LO", "PN", "SH", "TM", "UC", "UI"), Padding.EACH_END)
    | dict.fromkeys(("AE", "CS", "DS", "IS"), Padding.AROUND_EACH)
)
"""The padding of character-string VRs."""


def shared_vr(key: int, a: str | None, b: str | None, signed: bool | None) -> str | None:
    """The VR by which two values of one element are compared.

    Args:
        key: of the tag.
        a: one side's VR; None when it does not say (implicit, UN).
        b: the other's.
        signed: what Pixel Representation says; None where it says nothing.

    Returns:
        None when neither side nor the data dictionary says.

    Raises:
        Different: the VRs give the bytes different meanings.
    """
    if a is not None and a == b:
        return a
    possible = _possible_vrs(key)
    if a is None and b is None:
        return possible[0] if len(possible) == 1 else None
    if a is None or b is None:
        said = a or b
        assert said is not None
        if said in ("US", "SS") and "US" in possible and "SS" in possible:
            # The silent side means what Pixel Representation says.
            return said if signed is (said == "SS") else _refuse()
        if not possible or said in possible:
            return said
        # The silent side means what the dictionary says.
        return _agreed(said, possible[0]) if len(possible) == 1 else _refuse()
    if "OW" in (a, b) and a in possible and b in possible:
        return "OW"  # US or OW, OB or OW: the same words
    return _agreed(a, b) if {a, b} == {"OB", "OW"} else _refuse()


def _agreed(a: str, b: str) -> str:
    if {a, b} == {"OB", "OW"}:
        return "OW"
    if a in PADDING and b in PADDING:
        return "UT"  # the least padding is ignored
    return _refuse()


def _refuse() -> str:
    raise Different


@lru_cache(maxsize=4096)
def _possible_vrs(key: int) -> tuple[str, ...]:
    """The VRs that the data dictionary gives a tag; none for private and unknown ones."""
    group, element = key & 0xFFFF, key >> 16
    if group & 1:
        return ("LO",) if 0x10 <= element <= 0xFF else ()
    try:
        return tuple(dictionary_vr(group << 16 | element).split(" or "))
    except KeyError:
        return ()
