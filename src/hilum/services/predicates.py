"""What a key of a query asks of an attribute's value.

A predicate is made once from the key's text and asked about any number of values. Values are
texts as in `services.text`, several of one attribute with backslashes between them.

Case and accents: names of persons (VR PN) are compared without regard to case, accents, width and
delimiters at the end (`text.fold_name`); a name is found by any of its component groups (by the
alphabetic one when the key is ASCII), or by all of them when the key has ``=`` too. Every other VR is compared exactly, spaces around the value
apart.

Standard: PS3.4 C.2.2.2 (attribute matching).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from hilum.services import text

__all__ = [
    "MAX_VALUES",
    "Absent",
    "BadValue",
    "Moments",
    "Numbers",
    "Pattern",
    "Predicate",
    "Range",
    "Texts",
    "Universal",
    "offset_minutes",
    "predicate_for",
]

MAX_VALUES = 10_000
"""Values of one key: a list of all the instances of a large study."""

NUMERIC_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_NOT_MATCHED = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})
# One value each, whatever backslashes it has (PS3.5 Table 6.2-1).
ONE_VALUE_VRS = frozenset({"LT", "ST", "UR", "UT"})

# Behind every digit and the point of a time's fraction: with it a prefix becomes the last of all
# values that begin so.
_LAST = ":"


class BadValue(ValueError):
    """A key's value that its VR cannot have; says what is wrong, without the value."""


@dataclass(frozen=True, slots=True)
class Universal:
    """Matches everything, a missing value too; the attribute is only to be returned.

    Standard: PS3.4 C.2.2.2.3.
    """

    def matches(self, value: str) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class Absent:
    """Matches an attribute without value: the key is two double quotes.

    Standard: PS3.4 C.2.2.2.7 (Empty Value Matching).
    """

    def matches(self, value: str) -> bool:
        """Whether there is none."""
        return not value


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with wildcards, or without: ``*`` any characters, ``?`` one.

    Args:
        text: as it is compared, so folded for names.
    """

    text: str
    _match: Callable[[str], object] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, source: str) -> Pattern:
        """Compile a pattern."""
        while "**" in source:
            source = source.replace("**", "*")
        return cls(source, _glob(source) if "*" in source or "?" in source else None)

    @property
    def is_literal(self) -> bool:
        """Whether it has no wildcards."""
        return self._match is None

    @property
    def prefix(self) -> str:
        """What every matching text begins with."""
        return re.split(r"[*?]", self.text, maxsplit=1)[0]

    def matches(self, value: str) -> bool:
        """Whether one value fits."""
        return value == self.text if self._match is None else bool(self._match(value))

    def matches_groups(self, value: str, groups: list[str]) -> bool:
        """Whether a name of several component groups fits.

        With ``=`` it is compared with the whole name, in ASCII with the alphabetic group, which
        alone is written so, and otherwise with each group.
        """
        if "=" in self.text:
            return self.matches(value)
        if self.text.isascii():
            return self.matches(groups[0])
        return any(map(self.matches, filter(None, groups)))


@lru_cache(maxsize=256)
def _glob(source: str) -> Callable[[str], object]:
    """Atomic groups take the first place where a piece fits and never try another.

    A pattern with many ``*`` would otherwise take a time that grows with a power of the text.
    """
    first, *rest = (
        "".join("." if c == "?" else re.escape(c) for c in piece) for piece in source.split("*")
    )
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    *middle, last = rest
    found = first + "".join(f"(?>.*?{piece})" for piece in middle) + ".*" + last
    return re.compile(found, re.DOTALL).fullmatch


@dataclass(frozen=True, slots=True)
class Texts:
    """One value, a list, or patterns: any of them has to fit any of the attribute's values.

    A list is defined for UIDs; other VRs are answered likewise, as Multiple Value Matching does.

    Standard: PS3.4 C.2.2.2.1, C.2.2.2.2, C.2.2.2.4, C.2.2.2.8.

    Args:
        patterns: at least one.
        is_name: a person name: values are folded, and compared by component group.
        several: the attribute may have several values.
    """

    patterns: tuple[Pattern, ...]
    is_name: bool = False
    several: bool = False
    _literals: frozenset[str] = field(init=False, compare=False, repr=False)
    _wild: tuple[Pattern, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        literals = frozenset(pattern.text for pattern in self.patterns if pattern.is_literal)
        object.__setattr__(self, "_literals", literals)
        object.__setattr__(self, "_wild", tuple(p for p in self.patterns if not p.is_literal))

    @property
    def literals(self) -> frozenset[str]:
        """Those without wildcards."""
        return self._literals

    @property
    def wild(self) -> tuple[Pattern, ...]:
        """Those with wildcards."""
        return self._wild

    def matches(self, value: str) -> bool:
        """Whether one of the values fits."""
        if not value:
            return False
        if self.several and "\\" in value:
            return any(map(self._one, value.split("\\")))
        return self._one(value)

    def _one(self, value: str) -> bool:
        if not self.is_name:
            value = value.strip(" \0")
            return value in self._literals or any(one.matches(value) for one in self._wild)
        value = text.fold_name(value)
        if "=" not in value:
            return bool(value) and any(pattern.matches(value) for pattern in self.patterns)
        groups = value.split("=")
        return any(pattern.matches_groups(value, groups) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Range:
    """From one date, or time of day, to another, both included; a single one is a range too.

    Of a time that is not given to the end, its earliest moment begins a range and its latest ends
    it: ``10-1130`` is from 10:00:00 to 11:30:59.999999. The bounds are made so that they can be
    compared with the values as texts.

    Standard: PS3.4 C.2.2.2.1.2, C.2.2.2.5.

    Args:
        vr: DA or TM.
        low: "" is open.
        high: "" is open.
    """

    vr: str
    low: str
    high: str

    def matches(self, value: str) -> bool:
        """Whether one of the values is inside."""
        return any(map(self.holds, value.split("\\")))

    def holds(self, value: str) -> bool:
        """Whether one value is inside."""
        read = text.da if self.vr == "DA" else text.tm
        found = read(value.encode("latin-1", "replace"))
        return found is not None and self.low <= found and (not self.high or found <= self.high)


@dataclass(frozen=True, slots=True)
class Moments:
    """From one date and time to another, both included (VR DT).

    Args:
        low: µs since year 1, UTC; None is open.
        high: likewise.
        offset: minutes from UTC of values that do not say it.
    """

    low: int | None
    high: int | None
    offset: int = 0

    def matches(self, value: str) -> bool:
        """Whether one of the values is inside."""
        for one in value.split("\\"):
            found = _moments(one.strip(" \0"), self.offset)
            if (
                found is not None
                and (self.low is None or self.low <= found[0])
                and (self.high is None or found[0] <= self.high)
            ):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Numbers:
    """One of these numbers, however it is written.

    Standard: PS3.4 C.2.2.2.1.
    """

    values: frozenset[float]

    def matches(self, value: str) -> bool:
        """Whether one of the values is among them."""
        return any(_number(one) in self.values for one in value.split("\\"))


Predicate = Universal | Absent | Texts | Range | Moments | Numbers


def predicate_for(vr: str, value: str, *, several: bool = True, offset: int = 0) -> Predicate:
    """What a key asks.

    Args:
        vr: of the attribute.
        value: the key's text.
        several: the attribute may have several values.
        offset: minutes from UTC of times (VR DT) that do not say it.

    Raises:
        BadValue: the VR cannot have this value.
    """
    value = value.strip(" \0")
    # Only asterisks is universal too (C.2.2.2.4), and peers send it in any VR.
    if not value.strip("*") or vr in _NOT_MATCHED:
        return Universal()
    if value == '""':
        return Absent()
    if vr in ("DA", "TM"):
        return _range(vr, value)
    if vr == "DT":
        return _moment_range(value, offset)
    if vr in NUMERIC_VRS:
        return _numbers(value)
    return _texts(vr, value, several)


def _texts(vr: str, value: str, several: bool) -> Predicate:
    is_name = vr == "PN"
    values = [value] if vr in ONE_VALUE_VRS else [one.strip(" \0") for one in value.split("\\")]
    if len(values) > MAX_VALUES:
        raise BadValue(f"{len(values)} values, at most {MAX_VALUES} are taken")
    patterns: dict[str, None] = {}
    for one in filter(None, values):
        if not one.strip("*"):
            return Universal()
        if not is_name:
            patterns[one] = None
            continue
        folded = text.fold_name(one)
        if not folded.strip("*"):  # but for delimiters
            return Universal()
        patterns[folded] = None
        # Delimiters at the end of a name are left out, so that "Doe^*" is to find "Doe" too.
        bare = folded
        while bare.endswith("^*"):
            bare = bare[:-2]
        if bare and bare != folded:
            patterns[bare] = None
    made = tuple(map(Pattern.of, filter(None, patterns)))
    return Texts(made, is_name, several and vr not in ONE_VALUE_VRS) if made else Universal()


def _numbers(value: str) -> Numbers:
    numbers = [_number(one) for one in value.split("\\") if one.strip()]
    if None in numbers or not numbers:
        raise BadValue("not a number")
    return Numbers(frozenset(number for number in numbers if number is not None))


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither NaN nor infinite


# ── dates and times ───────────────────────────────────────────────────────────────────────────


def _range(vr: str, value: str) -> Range:
    read = text.da if vr == "DA" else text.tm
    first, hyphen, last = (part.strip() for part in value.partition("-"))
    if not hyphen:
        last = first
    bounds = [
        read(part.encode("latin-1", "replace")) if part else "" for part in (first, last)
    ]  # fmt: skip
    low, high = bounds
    if low is None or high is None or not (low or high):
        raise BadValue(f"not a {'date' if vr == 'DA' else 'time'} or a range of them")
    if vr == "DA":
        return Range(vr, low, high)
    return Range(vr, _earliest(low), high + _LAST if high else "")


def _earliest(low: str) -> str:
    """The shortest way to write a time: only so is it not after others that mean the same."""
    if "." in low:
        low = low.rstrip("0").rstrip(".")
    while low.endswith("00") and len(low) % 2 == 0 and "." not in low:
        low = low[:-2]
    return low


_DT = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?"
    r"(?:([+-])(\d\d)(\d\d))?"
)
_ORIGIN = datetime(1, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def _moment_range(value: str, offset: int) -> Moments:
    single = _moments(value, offset)
    if single is not None:
        return Moments(single[0], single[1], offset)
    # A hyphen may be an offset's sign: the first place where both sides are times decides.
    for place, char in enumerate(value):
        if char != "-":
            continue
        first, last = value[:place].strip(), value[place + 1 :].strip()
        low = _moments(first, offset) if first else None
        high = _moments(last, offset) if last else None
        if (low or not first) and (high or not last) and (low or high):
            return Moments(low[0] if low else None, high[1] if high else None, offset)
    raise BadValue("not a date and time or a range of them")


def _moments(value: str, offset: int) -> tuple[int, int] | None:
    """The first and the last µs of a DT value; None when it is none.

    Standard: PS3.5 6.2 (DT).
    """
    found = _DT.fullmatch(value)
    if found is None:
        return None
    *parts, fraction, sign, hours, minutes = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if sign is not None:
        offset = int(hours) * 60 + int(minutes)
        if offset > 14 * 60 or int(minutes) > 59:
            return None
        offset = -offset if sign == "-" else offset
    filled = numbers + [1, 1, 0, 0, 0][len(numbers) - 1 :]
    try:
        year, month, day, hour, minute, second = filled
        start = datetime(year, month, day, hour, minute, min(second, 59))  # 60: a leap second
    except ValueError:
        return None
    first = (start - _ORIGIN) // _MICROSECOND - offset * 60_000_000
    digits = fraction or ""
    first += int(digits.ljust(6, "0")) if digits else 0
    return first, first + _span(len(numbers), start, len(digits)) - 1


def _span(given: int, start: datetime, digits: int) -> int:
    """How many µs a DT value covers that ends after so many components."""
    if given == 6:
        return int(10 ** (6 - digits))
    if given >= 3:
        return {3: 86_400_000_000, 4: 3_600_000_000, 5: 60_000_000}[given]
    if given == 1:
        days = 366 if start.year % 4 == 0 and (start.year % 100 or start.year % 400 == 0) else 365
        return days * 86_400_000_000
    following = start.replace(day=28) + timedelta(days=4)
    return following.replace(day=1).__sub__(timedelta(days=1)).day * 86_400_000_000


_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


def offset_minutes(value: str) -> int | None:
    """Minutes from UTC that a value of (0008,0201) says; None when it is none.

    Standard: PS3.3 C.12.1.1.8.
    """
    found = _OFFSET.fullmatch(value.strip(" \0"))
    if found is None or int(found[2]) > 14 or int(found[3]) > 59:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes
