"""The one matching engine: a query's identifier as keys with predicates, asked about attributes.

C-FIND asks it about the index, and so will QIDO-RS; routing rules ask it about headers. The gateway
compiles the same keys to SQL; a test holds the two together.

Standard: PS3.4 C.2.2.2 (attribute matching), C.4.1 (C-FIND), C.5.1.1 (extended negotiation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from mmap import mmap
from typing import TYPE_CHECKING, Any, TypeAlias

from hilum.errors import InvalidDicom
from hilum.services import text
from hilum.services.elements import Buffer
from hilum.services.identifier import (
    SPECIFIC_CHARACTER_SET,
    Attribute,
    Items,
    multiplicity,
    read_attributes,
    vr_of,
)
from hilum.services.predicates import (
    BadValue,
    Predicate,
    Range,
    Universal,
    offset_minutes,
    predicate_for,
)
from hilum.services.status import Status
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "OTHER_HALF",
    "QUERY_RETRIEVE_LEVEL",
    "TIMEZONE_OFFSET",
    "Combined",
    "InvalidIdentifier",
    "Key",
    "Level",
    "Matching",
    "Query",
    "Value",
]

QUERY_RETRIEVE_LEVEL = 0x00080052
TIMEZONE_OFFSET = 0x00080201

MAX_KEYS = 1000
"""Keys of one query, nested ones too; PS3.4 names some sixty."""

_NOT_KEYS = frozenset(
    {
        SPECIFIC_CHARACTER_SET,
        QUERY_RETRIEVE_LEVEL,
        0x00080001,  # Length to End, of ACR-NEMA
        0x00080053,  # Query/Retrieve View
    }
)

# Dates and the times of day that belong to them: (DA, TM).
_PAIRS = (
    (0x00080020, 0x00080030),  # Study
    (0x00080021, 0x00080031),  # Series
    (0x00080022, 0x00080032),  # Acquisition
    (0x00080023, 0x00080033),  # Content
    (0x00400002, 0x00400003),  # Scheduled Procedure Step Start
    (0x00400004, 0x00400005),  # Scheduled Procedure Step End
    (0x00400244, 0x00400245),  # Performed Procedure Step Start
    (0x00400250, 0x00400251),  # Performed Procedure Step End
)
OTHER_HALF = dict(_PAIRS) | {time: date for date, time in _PAIRS}
"""Of a date the time of day that belongs to it, and the reverse."""

Value: TypeAlias = "str | int | bytes | Items | None"
"""Of an attribute: text (several values with backslashes), number, items, or nothing."""


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


class InvalidIdentifier(InvalidDicom):
    """An identifier that cannot be answered.

    Args:
        message: what is wrong, without a patient's data; becomes the error comment.
        status: A900H or C000H.
        offending: tags of the elements that are wrong.
    """

    def __init__(
        self,
        message: str,
        status: int = Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        offending: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.offending = status, offending


@dataclass(frozen=True, slots=True)
class Matching:
    """What was negotiated beyond the baseline.

    Standard: PS3.4 C.5.1.1 (service-class application information).

    Args:
        combined: a date and the time that belongs to it are matched as one moment.
        timezone: dates and times are asked in the time zone that the identifier names.
        offset: minutes from UTC of dates and times that do not say it.
    """

    combined: bool = False
    timezone: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a query.

    Args:
        tag: as a 32-bit number.
        vr: by the data dictionary; as encoded for what it does not know.
        predicate: what is asked; of a sequence, `Universal` when nothing is.
        items: the keys inside, for a sequence.
    """

    tag: int
    vr: str
    predicate: Predicate = field(default_factory=Universal)
    items: tuple[Key, ...] = ()

    @property
    def is_universal(self) -> bool:
        """Whether every value matches, so that the attribute is only to be returned."""
        return isinstance(self.predicate, Universal) and all(
            inner.is_universal for inner in self.items
        )

    def matches(self, value: Value) -> bool:
        """Whether an attribute with this value matches."""
        if self.vr == "SQ":
            return self._matches_items(value)
        if value is None:
            value = ""
        return self.predicate.matches(value if type(value) is str else _as_text(value))

    def _matches_items(self, value: Value) -> bool:
        """One item has to match all keys (PS3.4 C.2.2.2.6); without keys everything matches."""
        if not isinstance(self.predicate, Universal):
            return not value
        asked = [key for key in self.items if not key.is_universal]
        if not asked:
            return True
        if not isinstance(value, tuple):
            return False
        for item in value:
            found = {one.tag: one.value for one in item}
            if all(key.matches(found.get(key.tag)) for key in asked):
                return True
        return False


def _as_text(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Combined:
    """A date and the time that belongs to it, from one moment to another.

    Standard: PS3.4 C.2.2.2.5.4.

    Args:
        date: the key of the date.
        time: the key of the time.
        date_range: the date's predicate.
        time_range: the time's; a bound without a date's bound is passed over.
    """

    date: int
    time: int
    date_range: Range
    time_range: Range

    def holds(self, date: str, time: str) -> bool:
        """Whether a moment is inside; both in the form of `text.da` and `text.tm`."""
        dates, times = self.date_range, self.time_range
        if not date or not time:
            return False
        if dates.low and (date < dates.low or (date == dates.low and time < times.low)):
            return False
        return not dates.high or not (
            date > dates.high or (date == dates.high and times.high and time > times.high)
        )


@dataclass(frozen=True, slots=True)
class Query:
    """A query: where it asks, what it asks and what it wants to be told.

    Args:
        level: of (0008,0052); None where the identifier has none.
        keys: in order of their tags.
        charset: raw (0008,0005) of the identifier; None without.
        combined: dates and times that are one moment; their keys are in `keys` too.
        timezone: minutes from UTC in which dates and times are asked; None: as they are.
        matching: what was negotiated.
    """

    level: Level | None
    keys: tuple[Key, ...]
    charset: bytes | None = None
    combined: tuple[Combined, ...] = ()
    timezone: int | None = None
    matching: Matching = field(default_factory=Matching)

    @classmethod
    def parse(
        cls,
        identifier: Buffer | Dataset,
        transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
        *,
        fallback: str | None = None,
        matching: Matching = Matching(),
    ) -> Query:
        """Read an identifier.

        Args:
            identifier: its bytes, or a pydicom data set.
            transfer_syntax: of the bytes.
            fallback: character set of text that is not ASCII without (0008,0005).
            matching: what was negotiated.

        Raises:
            InvalidIdentifier: with the status to answer.
        """
        if isinstance(identifier, bytes | bytearray | memoryview | mmap):
            try:
                attributes = read_attributes(identifier, transfer_syntax, fallback=fallback)
            except InvalidDicom as error:
                raise InvalidIdentifier(str(error), Status.CANNOT_UNDERSTAND) from error
        else:
            attributes = _from_data_set(identifier)
        return cls.of(attributes, matching=matching)

    @classmethod
    def of(cls, attributes: Iterable[Attribute], *, matching: Matching = Matching()) -> Query:
        """From attributes that have been read.

        Raises:
            InvalidIdentifier: with the status to answer.
        """
        found = {one.tag: one for one in attributes}
        charset = found.get(SPECIFIC_CHARACTER_SET)
        counter = [0]
        keys = tuple(
            _key(one, matching, counter) for tag, one in sorted(found.items()) if _may_be_key(tag)
        )
        zone = found.get(TIMEZONE_OFFSET) if matching.timezone else None
        timezone = offset_minutes(str(zone.value)) if zone is not None and zone.value else None
        return cls(
            _level(found.get(QUERY_RETRIEVE_LEVEL)),
            # It says what the other values mean, and is not matched itself.
            tuple(Key(key.tag, key.vr) if key.tag == TIMEZONE_OFFSET else key for key in keys),
            str(charset.value).encode("ascii", "replace") if charset is not None else None,
            _combined(keys) if matching.combined else (),
            timezone,
            matching,
        )

    def key(self, tag: int) -> Key | None:
        """The key with this tag."""
        return next((key for key in self.keys if key.tag == tag), None)

    def without(self, tags: Iterable[int]) -> Query:
        """The query with nothing asked of these: what a provider does with keys it lacks."""
        left_out = frozenset(tags)
        return Query(
            self.level,
            tuple(key for key in self.keys if key.tag not in left_out),
            self.charset,
            tuple(
                one for one in self.combined
                if one.date not in left_out and one.time not in left_out
            ),
            self.timezone,
            self.matching,
        )  # fmt: skip

    def matches(self, attributes: Mapping[int, Any]) -> bool:
        """Whether attributes, by tag, match every key; a missing one has no value."""
        get = attributes.get
        together = {tag for one in self.combined for tag in (one.date, one.time)}
        zone = self._shift(attributes)
        for key in self.keys:
            if key.tag in together or key.is_universal:
                continue
            if zone and key.tag in OTHER_HALF and isinstance(key.predicate, Range):
                date, time = self._moved(key.tag, attributes, zone)
                if not key.predicate.matches(date if key.vr == "DA" else time):
                    return False
            elif not key.matches(get(key.tag)):
                return False
        return all(one.holds(*self._moved(one.date, attributes, zone)) for one in self.combined)

    def _shift(self, attributes: Mapping[int, Any]) -> int:
        """Minutes from the attributes' time zone to the query's."""
        if self.timezone is None:
            return 0
        theirs = offset_minutes(str(attributes.get(TIMEZONE_OFFSET) or ""))
        return 0 if theirs is None else self.timezone - theirs

    @staticmethod
    def _moved(tag: int, attributes: Mapping[int, Any], minutes: int) -> tuple[str, str]:
        """A date and the time that belongs to it, moved by some minutes."""
        other = OTHER_HALF[tag]
        date_tag, time_tag = (tag, other) if vr_of(tag) == "DA" else (other, tag)
        date = text.da(str(attributes.get(date_tag) or "").encode("latin-1", "replace")) or ""
        time = text.tm(str(attributes.get(time_tag) or "").encode("latin-1", "replace")) or ""
        if not minutes or not date or not time:
            return date, time
        whole, point, fraction = time.partition(".")
        given = datetime.strptime(date + whole[:4].ljust(4, "0"), "%Y%m%d%H%M")
        try:
            there = given + timedelta(minutes=minutes)
        except OverflowError:
            return date, time
        seconds = whole[4:]
        return there.strftime("%Y%m%d"), there.strftime("%H%M") + seconds + point + fraction


# ── from attributes to keys ───────────────────────────────────────────────────────────────────


def _may_be_key(tag: int) -> bool:
    return tag not in _NOT_KEYS and tag >> 16 != 2 and bool(tag & 0xFFFF)


def _level(found: Attribute | None) -> Level | None:
    named = str(found.value).strip(" \0").upper() if found is not None else ""
    if not named:
        return None
    # The level of instances is called IMAGE whatever they are.
    named = {"INSTANCE": "IMAGE"}.get(named, named)
    try:
        return Level(named)
    except ValueError:
        raise InvalidIdentifier(
            "unknown Query/Retrieve Level", offending=(QUERY_RETRIEVE_LEVEL,)
        ) from None


def _key(one: Attribute, matching: Matching, counter: list[int]) -> Key:
    counter[0] += 1
    if counter[0] > MAX_KEYS:
        raise InvalidIdentifier(f"more than {MAX_KEYS} keys", Status.CANNOT_UNDERSTAND)
    if isinstance(one.value, tuple):
        if len(one.value) > 1:
            raise InvalidIdentifier("a sequence key has more than one item", offending=(one.tag,))
        inner = one.value[0] if one.value else ()
        return Key(
            one.tag, "SQ", items=tuple(_key(e, matching, counter) for e in inner if _may_be_key(e.tag))
        )  # fmt: skip
    known = vr_of(one.tag)
    vr = one.vr if known == "UN" else known
    if isinstance(one.value, bytes):
        return Key(one.tag, vr)
    if vr == "SQ":  # a sequence that the peer wrote as a text
        return Key(one.tag, vr)
    try:
        predicate = predicate_for(
            vr, one.value, several=multiplicity(one.tag) != "1", offset=matching.offset
        )
    except BadValue as error:
        tag = f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X})"
        raise InvalidIdentifier(f"{tag}: {error}", Status.CANNOT_UNDERSTAND, (one.tag,)) from error
    return Key(one.tag, vr, predicate)


def _combined(keys: Iterable[Key]) -> tuple[Combined, ...]:
    ranges = {key.tag: key.predicate for key in keys}
    found = []
    for date, time in _PAIRS:
        dates, times = ranges.get(date), ranges.get(time)
        if isinstance(dates, Range) and isinstance(times, Range):
            found.append(Combined(date, time, dates, times))
    return tuple(found)


def _from_data_set(data_set: Dataset) -> tuple[Attribute, ...]:
    """From pydicom, whose data sets are iterables of elements with tag, VR and value."""
    found = []
    for element in data_set:
        tag, vr, value = int(element.tag), str(element.VR)[:2], element.value
        if vr == "SQ":
            found.append(Attribute(tag, vr, tuple(_from_data_set(item) for item in value or ())))
        elif value is None or value == "":
            found.append(Attribute(tag, vr, ""))
        elif isinstance(value, bytes):
            found.append(Attribute(tag, vr, value))
        else:
            several = element.VM > 1
            found.append(Attribute(tag, vr, "\\".join(map(str, value)) if several else str(value)))
    return tuple(found)
