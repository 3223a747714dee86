"""Text out of raw values: character sets, person names, dates, times, numbers, UIDs.

Nothing here raises on what a peer sent. Bytes that their character set cannot have are decoded
in another way, in the last resort as Latin-1, from which the bytes can be had back.

Standard: PS3.5 6.1 (character repertoires), 6.2 (value representations); PS3.3 C.12.1.1.2
(Specific Character Set).
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache

__all__ = [
    "character_sets",
    "da",
    "decode_person_name",
    "decode_text",
    "fold",
    "fold_name",
    "is_character_set",
    "integer",
    "single_codec",
    "tm",
    "uid",
]

_PADDING = " \0"

# VRs whose leading spaces mean nothing either (PS3.5 Table 6.2-1).
_LEADING_SPACE_IS_PADDING = frozenset({"AE", "CS", "DS", "IS", "LO", "SH"})

# Defined terms of (0008,0005), PS3.3 Tables C.12-2 to C.12-5, without what is between letters and
# digits, because the field writes "ISO IR 100", "ISO-IR 192" and "ISO_2022_IR_87" as well.
_ISO_NUMBERS = {
    "6": "ascii",
    "13": "shift_jis",  # JIS X 0201 is its one-byte half
    "58": "gb18030",  # GB 2312 is part of it
    "87": "iso2022_jp",
    "100": "iso8859_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
}
# ASCII needs no name, and sets of two bytes a character follow a first set.
_ONLY_WITH_EXTENSIONS = frozenset({"6", "58", "87", "149", "159"})
_OTHER_NAMES = {
    "": "ascii",
    "ASCII": "ascii",
    "BIG5": "big5",
    "EUCJP": "euc_jp",
    "EUCKR": "euc_kr",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "GB2312": "gb18030",
    "ISO2022GBK": "gbk",
    "ISO2022GB18030": "gb18030",
    "ISO202258": "gb18030",
    "KOI8R": "koi8_r",
    "KSC5601": "euc_kr",
    "LATIN1": "iso8859_1",
    "SHIFTJIS": "shift_jis",
    "TIS620": "tis_620",
    "UTF8": "utf_8",
    "UNICODE": "utf_8",
}
_ISO_TERM = re.compile(r"(?:ISO)?(?:2022)?(?:IR)?(\d+)")
_ISO_8859 = re.compile(r"ISO8859(?:P|PART)?([1-9]|1[01345])")
_CODE_PAGE = re.compile(r"(?:CP|WINDOWS)(437|85[02]|866|874|932|936|949|950|125[0-8])")

# PS3.3 Tables C.12-3 and C.12-4: what follows ESC, and the codec from there on.
_ESCAPES = {
    b"$B": "iso2022_jp",
    b"$@": "iso2022_jp",
    b"$(D": "iso2022_jp_2",
    b"(B": None,  # ASCII in G0; G1 stays as it was
    b"(J": "shift_jis",
    b")I": "shift_jis",
    b"-A": "iso8859_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-F": "iso8859_7",
    b"-G": "iso8859_6",
    b"-H": "iso8859_8",
    b"-L": "iso8859_5",
    b"-M": "iso8859_9",
    b"-T": "tis_620",
    b"-b": "iso8859_15",
    b"$)C": "euc_kr",
    b"$)A": "gb18030",
}
_WITHOUT_EXTENSIONS = frozenset({"utf_8", "gb18030", "gbk"})
# PS3.5 6.1.2.5.3: behind these the first character set is in force again.
_RESET = re.compile(rb"[\\\r\n\f\t]")
_RESET_IN_NAME = re.compile(rb"[\\\r\n\f\t^=]")
# Sets of 94 by 94 characters in G0 take the place of ASCII, so their bytes are not delimiters.
_RESET_IN_DOUBLE_BYTES = re.compile(rb"[\r\n\f\t]")


def character_sets() -> tuple[str, ...]:
    """The defined terms of (0008,0005) that are decoded, as PS3.3 writes them.

    Standard: PS3.3 Tables C.12-2 to C.12-5.
    """
    numbers = sorted(_ISO_NUMBERS, key=int)
    extended = {"ascii", *_ESCAPES.values()}
    return (
        *(f"ISO_IR {number}" for number in numbers if number not in _ONLY_WITH_EXTENSIONS),
        *(f"ISO 2022 IR {number}" for number in numbers if _ISO_NUMBERS[number] in extended),
        "GB18030",
        "GBK",
    )


def decode_text(
    raw: bytes, vr: str, character_set: bytes | None, fallback: str | None = None
) -> str:
    """The text of a value, all its values with backslashes between them.

    Trailing spaces and NULs are padding, leading spaces too where the VR says so. Bytes that the
    character set does not allow are tried as UTF-8, then by `fallback`, then taken as Latin-1.

    Standard: PS3.5 6.1, 6.2.

    Args:
        raw: the value's bytes.
        vr: its VR.
        character_set: the raw value of (0008,0005) that applies; None when it is absent.
        fallback: a defined term of (0008,0005) or another name of a character set (``cp1252``,
            ``latin1``), for peers that do not say what they write; an unknown one is passed over.
    """
    if raw.isascii() and b"\x1b" not in raw:
        text = raw.decode("ascii")
    else:
        text = _decode(raw, vr, character_set or b"", fallback)
    text = text.rstrip(_PADDING)
    return text.lstrip(" ") if vr in _LEADING_SPACE_IS_PADDING else text


def decode_person_name(raw: bytes, character_set: bytes | None, fallback: str | None = None) -> str:
    """A person name with all its component groups, each without padding at its end.

    Empty groups at the end, which mean nothing, are dropped with their delimiters.

    Standard: PS3.5 6.2.1.

    Args:
        raw: the value's bytes.
        character_set: as for `decode_text`.
        fallback: as for `decode_text`.
    """
    text = decode_text(raw, "PN", character_set, fallback)
    if "=" not in text and "\\" not in text:
        return text
    return "\\".join(
        "=".join(group.rstrip(_PADDING) for group in name.split("=")).rstrip("=")
        for name in text.split("\\")
    )


def _decode(raw: bytes, vr: str, character_set: bytes, fallback: str | None) -> str:
    first, *others = _codecs(character_set)
    try:
        if b"\x1b" in raw and first not in _WITHOUT_EXTENSIONS:
            return _decode_extended(raw, first, _RESET_IN_NAME if vr == "PN" else _RESET)
        return raw.decode(first)
    except UnicodeDecodeError:
        pass
    for codec in (*others, "utf_8", _codec(fallback or "")):
        # A fallback that is none has become ASCII, which cannot decode these bytes.
        try:
            return raw.decode(codec)
        except UnicodeDecodeError:
            continue
    return raw.decode("iso8859_1")


def _decode_extended(raw: bytes, first: str, reset: re.Pattern[bytes]) -> str:
    """Decode a value that changes its character set by escape sequences (ISO 2022)."""
    plain, *rest = raw.split(b"\x1b")
    text = [plain.decode(first)]
    for part in rest:
        sequence = next((s for s in (part[:3], part[:2]) if s in _ESCAPES), b"")
        if not sequence:
            text.append("\x1b" + part.decode(first))
            continue
        codec = _ESCAPES[sequence] or first
        part = part[len(sequence) :]
        prefix = b""
        if codec.startswith("iso2022"):
            prefix, reset_here = b"\x1b" + sequence, _RESET_IN_DOUBLE_BYTES
        else:
            reset_here = reset
        delimiter = reset_here.search(part)
        end = delimiter.start() if delimiter is not None else len(part)
        text.append((prefix + part[:end]).decode(codec))
        try:
            text.append(part[end:].decode(first))
        except UnicodeDecodeError:  # the sequence was not repeated behind the delimiter
            text.append(part[end:].decode(codec))
    return "".join(text)


@lru_cache(maxsize=256)
def _codecs(character_set: bytes) -> tuple[str, ...]:
    """The codecs of a raw Specific Character Set, the first one for what has no escape sequence."""
    return tuple(_codec(term) for term in character_set.decode("iso8859_1").split("\\"))


@lru_cache(maxsize=256)
def _codec(term: str) -> str:
    """The codec of a defined term, of its misspellings, or of another common name; else ASCII.

    A peer's term is looked up in tables only: Python has codecs that are no character sets.
    """
    name = re.sub(r"[^A-Z0-9]", "", term.upper())
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    number = _ISO_TERM.fullmatch(name)
    if number is not None and number[1] in _ISO_NUMBERS:
        return _ISO_NUMBERS[number[1]]
    for family, pattern in (("iso8859_", _ISO_8859), ("cp", _CODE_PAGE)):
        found = pattern.fullmatch(name)
        if found is not None:
            return family + found[1]
    return "ascii"


def is_character_set(name: str) -> bool:
    """Whether a defined term, or another name of a character set, is known here."""
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    return _codec(name) != "ascii" or plain in ("ASCII", "ISOIR6", "ISO2022IR6")


def single_codec(character_set: bytes) -> str | None:
    """The codec of a (0008,0005) with one value, for text that is to be written.

    None where escape sequences would be needed, or the term is not known.
    """
    term = character_set.decode("iso8859_1").strip()
    if not term or "\\" in term or "2022" in term:
        return None
    codec = _codec(term)
    # ISO_IR 13 has the one-byte half of Shift JIS only.
    return None if codec.startswith("iso2022") or codec == "shift_jis" else codec


def fold(text: str) -> str:
    """The form of a text in which case, accents, width and runs of spaces make no difference.

    To be stored beside the original and compared with the folded form of what is looked for.
    Folding twice changes nothing.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    for _ in range(2):  # a case folding can leave marks, and removing marks a capital
        decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(unicodedata.normalize("NFKC", text).split())


def fold_name(text: str) -> str:
    """The folded form of a person name (or of a pattern of one), its component groups by ``=``.

    Delimiters at the end of a name mean nothing and are dropped: ``Doe^John^^^`` is ``doe^john``.
    Several names keep their backslashes. Folding twice changes nothing.

    Standard: PS3.5 6.2.1.1.
    """
    folded = fold(text)
    if not ("^" in folded or "=" in folded or "\\" in folded):
        return folded
    return "\\".join(
        "=".join(map(_fold_group, name.split("="))).rstrip("=") for name in folded.split("\\")
    )


def _fold_group(group: str) -> str:
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")


_DATE = re.compile(rb"(\d{4})(\.?)(\d\d)\2(\d\d)")
_TIME = re.compile(rb"(\d\d)(?:(:?)(\d\d)(?:\2(\d\d)(?:\.(\d{1,6}))?)?)?")
_INTEGER = re.compile(rb"([+-]?\d{1,18})(?:\.0*)?")


def _first(raw: bytes) -> bytes:
    return raw.split(b"\\", 1)[0].strip(b" \0")


def da(raw: bytes) -> str | None:
    """A date as YYYYMMDD; None when it is not a date of the calendar.

    The form YYYY.MM.DD of ACR-NEMA is read too; of several values the first is taken.

    Standard: PS3.5 6.2 (DA).
    """
    found = _DATE.fullmatch(_first(raw))
    if found is None:
        return None
    year, _, month, day = found.groups()
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return None
    return (year + month + day).decode("ascii")


def tm(raw: bytes) -> str | None:
    """A time as HH, HHMM, HHMMSS or HHMMSS.F to .FFFFFF, as precise as it came; None if invalid.

    The form HH:MM:SS of ACR-NEMA is read too; of several values the first is taken.

    Standard: PS3.5 6.2 (TM).
    """
    found = _TIME.fullmatch(_first(raw))
    if found is None:
        return None
    hour, _, minute, second, fraction = found.groups()
    # 60 is a leap second.
    if hour > b"23" or (minute or b"") > b"59" or (second or b"") > b"60":
        return None
    whole = hour + (minute or b"") + (second or b"")
    return (whole + (b"." + fraction if fraction else b"")).decode("ascii")


def integer(raw: bytes) -> int | None:
    """An integer string as a number, ``1.0`` too; None when it is not whole or not a number.

    Of several values the first is taken.

    Standard: PS3.5 6.2 (IS).
    """
    found = _INTEGER.fullmatch(_first(raw))
    return int(found[1]) if found is not None else None


def uid(raw: bytes) -> str:
    """A UID as it came, without the NULs and spaces at its end.

    Standard: PS3.5 9.1.
    """
    return raw.rstrip(b" \0").decode("iso8859_1")
