"""Values of elements as people and the DICOM JSON model want them.

Standard: PS3.5 6.2 (value representations); PS3.18 F.2 (DICOM JSON model), F.2.3 (by VR).
"""

from __future__ import annotations

import math
import re
import struct
from typing import TypeAlias

from hilum.services import text

__all__ = ["BINARY_VRS", "JsonValue", "json_values", "values_of"]

JsonValue: TypeAlias = "str | int | float | dict[str, str] | None"

BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""VRs whose values are bytes: InlineBinary or BulkDataURI."""

_ONE_TEXT = frozenset({"LT", "ST", "UR", "UT"})
_NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
_INTEGER = re.compile(r"[+-]?\d{1,18}")


def values_of(
    vr: str, raw: bytes, *, little: bool = True, character_set: bytes = b""
) -> list[str | int | float]:
    """The values of an element that has no bytes for a value; never raises.

    Text is without padding, numbers of character strings stay text, tags are eight hexadecimal
    digits. Bytes behind the last whole number are passed over.

    Args:
        vr: not one of `BINARY_VRS`.
        raw: the value's bytes.
        little: order of bytes.
        character_set: raw (0008,0005).
    """
    order = "<" if little else ">"
    if vr == "AT":
        whole = raw[: len(raw) - len(raw) % 4]
        return [
            f"{group:04X}{number:04X}" for group, number in struct.iter_unpack(f"{order}HH", whole)
        ]
    form = _NUMBERS.get(vr)
    if form is not None:
        size = struct.calcsize(form)
        whole = raw[: len(raw) - len(raw) % size]
        return [number for (number,) in struct.iter_unpack(f"{order}{form}", whole)]
    if vr == "PN":
        joined = text.decode_person_name(raw, character_set)
    else:
        joined = text.decode_text(raw, vr, character_set)
    if not joined:
        return []
    if vr in _ONE_TEXT:
        return [joined]
    return [value.rstrip(" \0") if vr != "UI" else value for value in joined.split("\\")]


def json_values(
    vr: str, raw: bytes, *, little: bool = True, character_set: bytes = b""
) -> list[JsonValue]:
    """The same as the DICOM JSON model has them; empty for an element without value.

    Decimal and integer strings become numbers where they are some; what JSON has no number for
    (NaN, infinity) stays text. An empty value among others is None.

    Standard: PS3.18 F.2.3.
    """
    found: list[JsonValue] = []
    for value in values_of(vr, raw, little=little, character_set=character_set):
        if isinstance(value, str):
            found.append(_json_text(vr, value))
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(str(value))
        else:
            found.append(value)
    return found


def _json_text(vr: str, value: str) -> JsonValue:
    if vr == "PN":
        groups = zip(_GROUPS, value.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    stripped = value.strip(" ")
    if vr == "IS" and _INTEGER.fullmatch(stripped):
        return int(stripped)
    if vr in ("DS", "IS") and _DECIMAL.fullmatch(stripped):
        number = float(stripped)
        return number if math.isfinite(number) else stripped
    return value or None
