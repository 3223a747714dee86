"""Storage Commitment: what N-ACTION and N-EVENT-REPORT carry, read and written without pydicom.

Tens of thousands of references take some ten milliseconds: the items that every peer writes are
read at their expected places; whatever else stands in one goes the careful way.

Standard: PS3.4 Annex J (Table J.3-1 Action Information, Table J.3-2 Event Information), PS3.3
C.14 (Storage Commitment Module, C.14.1.1 Failure Reason).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

from hilum.errors import InvalidDicom, LimitExceeded
from hilum.services.element_reader import MAX_DEPTH, Element, ElementReader, Level
from hilum.services.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    UNDEFINED,
    Encoding,
    Malformed,
    key_of,
)
from hilum.services.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = [
    "ALL_COMMITTED",
    "FAILURES_EXIST",
    "MAX_REFERENCES",
    "REQUEST_COMMITMENT",
    "TRANSFER_SYNTAXES",
    "Action",
    "Failure",
    "FailureReason",
    "Reference",
    "Result",
    "describe",
    "encode_action",
    "encode_result",
    "failed_as_a_whole",
    "parse_action",
    "parse_result",
]

REQUEST_COMMITMENT = 1
"""Action Type ID of a request. Standard: PS3.4 Table J.3-1."""

ALL_COMMITTED = 1
"""Event Type ID: every reference is committed. Standard: PS3.4 Table J.3-2."""

FAILURES_EXIST = 2
"""Event Type ID: some references failed. Standard: PS3.4 Table J.3-2."""

MAX_REFERENCES = 500_000
"""References in one data set: what 64 MiB, the most that an association keeps, can hold."""

TRANSFER_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""How these data sets may be encoded, in order of preference."""

_ENCODINGS = {
    EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
}

_RETRIEVE_AE_TITLE = key_of(0x0008, 0x0054)
_SOP_CLASS = key_of(0x0008, 0x1150)
_SOP_INSTANCE = key_of(0x0008, 0x1155)
_TRANSACTION = key_of(0x0008, 0x1195)
_FAILURE_REASON = key_of(0x0008, 0x1197)
_FAILED = key_of(0x0008, 0x1198)
_REFERENCED = key_of(0x0008, 0x1199)


class FailureReason(IntEnum):
    """(0008,1197). Standard: PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


_MEANINGS = {
    FailureReason.PROCESSING_FAILURE: "processing failure",
    FailureReason.NO_SUCH_OBJECT_INSTANCE: "no such object instance",
    FailureReason.CLASS_INSTANCE_CONFLICT: "class / instance conflict",
    FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    FailureReason.DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
    FailureReason.RESOURCE_LIMITATION: "resource limitation",
}


def describe(reason: int) -> str:
    """A failure reason for people: ``0112H no such object instance``."""
    return f"{reason:04X}H {_MEANINGS.get(reason, 'reason not in the standard')}"  # type: ignore[call-overload]  # any number may be asked for


class Reference(NamedTuple):
    """An item of Referenced SOP Sequence (0008,1199)."""

    sop_class_uid: str
    sop_instance_uid: str


class Failure(NamedTuple):
    """An item of Failed SOP Sequence (0008,1198)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(frozen=True)
class Action:
    """A request for commitment.

    Standard: PS3.4 J.3.2.1.1, Table J.3-1.

    Args:
        transaction_uid: (0008,1195).
        references: what is to be committed, as it came.
    """

    transaction_uid: str
    references: tuple[Reference, ...]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of what is asked for: equal where two requests name the same instances.

        Neither order nor repetition counts.
        """
        lines = sorted(set(self.references))
        return hashlib.sha256("".join(f"{a}\0{b}\n" for a, b in lines).encode()).digest()


@dataclass(frozen=True, slots=True)
class Result:
    """A report of the result.

    Standard: PS3.4 J.3.3.1.1, Table J.3-2.

    Args:
        transaction_uid: (0008,1195).
        committed: what the SCP has taken responsibility for.
        failed: what it has not, and why.
        retrieve_ae_title: (0008,0054), from where it can be retrieved; "" where not said.
    """

    transaction_uid: str
    committed: tuple[Reference, ...] = ()
    failed: tuple[Failure, ...] = ()
    retrieve_ae_title: str = ""

    @property
    def event_type_id(self) -> int:
        """`ALL_COMMITTED`, or `FAILURES_EXIST` when anything failed."""
        return FAILURES_EXIST if self.failed else ALL_COMMITTED


def failed_as_a_whole(action: Action, reason: int) -> Result:
    """The result of a request of which nothing is committed, for one reason."""
    failed = tuple(Failure(*each, reason) for each in dict.fromkeys(action.references))
    return Result(action.transaction_uid, (), failed)


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def parse_action(
    data: bytes, transfer_syntax_uid: str, *, max_references: int = MAX_REFERENCES
) -> Action:
    """Read Action Information.

    Standard: PS3.4 Table J.3-1.

    Raises:
        InvalidDicom: no data set, one without Transaction UID or references, or a transfer syntax
            that is not of `TRANSFER_SYNTAXES`.
        LimitExceeded: more references than `max_references`.
    """
    found = _parse(data, transfer_syntax_uid, max_references)
    if not found.references:
        raise InvalidDicom("a request for commitment without Referenced SOP Sequence (0008,1199)")
    return Action(found.transaction_uid, tuple(found.references))


def parse_result(
    data: bytes, transfer_syntax_uid: str, *, max_references: int = MAX_REFERENCES
) -> Result:
    """Read Event Information of either type.

    A failure without a reason, which some peers send, is given 0110H.

    Standard: PS3.4 Table J.3-2.

    Raises:
        InvalidDicom: no data set, one without Transaction UID or without any reference, or a
            transfer syntax that is not of `TRANSFER_SYNTAXES`.
        LimitExceeded: more references than `max_references`.
    """
    found = _parse(data, transfer_syntax_uid, max_references)
    if not found.references and not found.failures:
        raise InvalidDicom("a result of commitment that names no instance")
    return Result(
        found.transaction_uid,
        tuple(found.references),
        tuple(found.failures),
        found.retrieve_ae_title,
    )


class _Found:
    def __init__(self) -> None:
        self.transaction_uid = ""
        self.retrieve_ae_title = ""
        self.references: list[Reference] = []
        self.failures: list[Failure] = []


def _parse(data: bytes, transfer_syntax_uid: str, max_references: int) -> _Found:
    encoding = _ENCODINGS.get(transfer_syntax_uid)
    if encoding is None:
        raise InvalidDicom(f"commitment data set in transfer syntax {transfer_syntax_uid}")
    found = _Found()
    try:
        _Reading(data, found, max_references).top(Level(len(data), encoding))
    except (struct.error, IndexError) as error:
        raise InvalidDicom("the commitment data set is cut short") from error
    except Malformed as error:
        raise InvalidDicom(f"the commitment data set cannot be read: {error}") from error
    if not found.transaction_uid:
        raise InvalidDicom("a commitment data set without Transaction UID (0008,1195)")
    return found


class _Reading:
    def __init__(self, data: bytes, found: _Found, limit: int) -> None:
        self._data = data
        self._text = data.decode("latin-1")  # one conversion; UIDs are slices of it
        self._reader = ElementReader(data)
        self._found = found
        self._left = limit
        self._limit = limit

    def top(self, level: Level) -> None:
        reader, found = self._reader, self._found
        while (element := reader.element(level)) is not None:
            if element.key in (_REFERENCED, _FAILED):
                self._sequence(element)
                continue
            if element.key == _TRANSACTION:
                found.transaction_uid = self._uid(element)
            elif element.key == _RETRIEVE_AE_TITLE:
                found.retrieve_ae_title = self._uid(element).strip(" ")
            self._pass(element, 1)

    def _sequence(self, element: Element) -> None:
        reader = self._reader
        level = reader.sequence(element)
        failing = element.key == _FAILED
        while True:
            if not failing:
                self._usual_items(level)
            item = reader.item(level)
            if item is None:
                return
            self._count(1)
            self._item(item, failing)

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise LimitExceeded(f"more than {self._limit:,} references in one data set", 6)

    def _item(self, item: Level, failing: bool) -> None:
        reader = self._reader
        sop_class = instance = ""
        reason = int(FailureReason.PROCESSING_FAILURE)
        while (element := reader.element(item)) is not None:
            if element.key == _SOP_CLASS:
                sop_class = self._uid(element)
            elif element.key == _SOP_INSTANCE:
                instance = self._uid(element)
            elif element.key == _FAILURE_REASON and element.length == 2:
                reason = element.encoding.u16(self._data, element.start)[0]
            self._pass(element, 2)
        if failing:
            self._found.failures.append(Failure(sop_class, instance, reason))
        else:
            self._found.references.append(Reference(sop_class, instance))

    def _uid(self, element: Element) -> str:
        if element.length == UNDEFINED:
            raise Malformed("a text without length")
        return self._text[element.start : element.start + element.length].strip("\0 ")

    def _pass(self, element: Element, depth: int) -> None:
        """Go on behind a value that says nothing to us."""
        reader = self._reader
        if element.length != UNDEFINED:
            reader.pos = element.start + element.length
            return
        if depth > MAX_DEPTH:
            raise Malformed(f"sequences nested deeper than {MAX_DEPTH}")
        level = reader.sequence(element)
        while (item := reader.item(level)) is not None:
            while (inner := reader.element(item)) is not None:
                self._pass(inner, depth + 1)

    def _usual_items(self, level: Level) -> None:
        """Items of exactly a class and an instance, for as long as they follow each other."""
        usual = _USUAL.get(level.encoding.name)
        if usual is None:
            return
        first, second = usual
        data, text, end = self._data, self._text, level.end
        pos = self._reader.pos
        found: list[Reference] = []
        most = self._left + 1  # one too many is what `_count` has to see
        append = found.append
        while pos + 32 <= end and len(found) < most:
            item, length, tag, size = first(data, pos)
            middle = pos + 16 + size
            if item != _ITEM_TAG or tag != _CLASS_TAG or middle + 8 > end:
                break
            tag, instance_size = second(data, middle)
            stop = middle + 8 + instance_size
            if tag != _INSTANCE_TAG or stop > end:
                break
            if length == UNDEFINED:
                if data[stop : stop + 8] != _ITEM_END:
                    break
                after = stop + 8
            elif stop == pos + 8 + length:
                after = stop
            else:
                break
            append(
                Reference(
                    text[pos + 16 : middle].strip("\0 "), text[middle + 8 : stop].strip("\0 ")
                )
            )
            pos = after
        self._reader.pos = pos
        self._found.references += found
        self._count(len(found))


_ITEM_TAG = ITEM
_CLASS_TAG = _SOP_CLASS
_INSTANCE_TAG = _SOP_INSTANCE
_ITEM_END = struct.pack("<II", ITEM_DELIMITATION, 0)


def _explicit_first(data: bytes, pos: int) -> tuple[int, ...]:
    item, length, tag, vr, size = _FOUR_WITH_VR(data, pos)
    return item, length, tag if vr == _UI else 0, size


def _explicit_second(data: bytes, pos: int) -> tuple[int, ...]:
    tag, vr, size = _TWO_WITH_VR(data, pos)
    return tag if vr == _UI else 0, size


_FOUR = struct.Struct("<IIII").unpack_from
_TWO = struct.Struct("<II").unpack_from
_FOUR_WITH_VR = struct.Struct("<IIIHH").unpack_from
_TWO_WITH_VR = struct.Struct("<IHH").unpack_from
_UI = int.from_bytes(b"UI", "little")
# How the two elements of a usual item are read: (item, its length, tag, length) and (tag, length).
_USUAL: dict[str, tuple[Callable[..., tuple[Any, ...]], Callable[..., tuple[Any, ...]]]] = {
    IMPLICIT_LITTLE.name: (_FOUR, _TWO),
    EXPLICIT_LITTLE.name: (_explicit_first, _explicit_second),
}


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def encode_action(action: Action, transfer_syntax_uid: str) -> bytes:
    """Write Action Information.

    Standard: PS3.4 Table J.3-1.

    Raises:
        InvalidDicom: a UID that cannot be written, or another transfer syntax than those of
            `TRANSFER_SYNTAXES`.
    """
    write = _Writer(transfer_syntax_uid)
    return write.uid(_TRANSACTION, action.transaction_uid) + write.sequence(
        _REFERENCED, write.references(action.references)
    )


def encode_result(result: Result, transfer_syntax_uid: str) -> bytes:
    """Write Event Information of the type that `Result.event_type_id` says.

    Standard: PS3.4 Table J.3-2.

    Raises:
        InvalidDicom: as `encode_action`.
    """
    write = _Writer(transfer_syntax_uid)
    parts = []
    if result.retrieve_ae_title:
        parts.append(write.title(_RETRIEVE_AE_TITLE, result.retrieve_ae_title))
    parts.append(write.uid(_TRANSACTION, result.transaction_uid))
    if result.failed:
        parts.append(write.sequence(_FAILED, write.failures(result.failed)))
    if result.committed:
        parts.append(write.sequence(_REFERENCED, write.references(result.committed)))
    return b"".join(parts)


class _Writer:
    def __init__(self, transfer_syntax_uid: str) -> None:
        encoding = _ENCODINGS.get(transfer_syntax_uid)
        if encoding is None:
            raise InvalidDicom(f"commitment data set in transfer syntax {transfer_syntax_uid}")
        self._encoding: Encoding = encoding
        order = "<" if encoding.little else ">"
        self._long = struct.Struct(order + "HHI").pack
        self._short = struct.Struct(order + "HH2sH").pack
        self._sequence = struct.Struct(order + "HH2sHI").pack
        self._u16 = struct.Struct(order + "H").pack
        self._uids: dict[tuple[int, str], bytes] = {}

    def uid(self, key: int, uid: str) -> bytes:
        """A UI element, padded with NUL to even length (PS3.5 6.2)."""
        value = self._ascii(uid)
        return self._element(key, b"UI", value + b"\0" if len(value) % 2 else value)

    def title(self, key: int, title: str) -> bytes:
        """An AE element."""
        value = self._ascii(title)
        return self._element(key, b"AE", value + b" " if len(value) % 2 else value)

    def sequence(self, key: int, items: Iterable[bytes]) -> bytes:
        """An SQ element of defined length."""
        long = self._long
        body = bytearray()
        for item in items:
            body += long(0xFFFE, 0xE000, len(item))
            body += item
        if len(body) >= UNDEFINED - 1:
            raise InvalidDicom(f"a sequence of {len(body)} bytes cannot be written")
        group, element = key & 0xFFFF, key >> 16
        if self._encoding.explicit:
            return self._sequence(group, element, b"SQ", 0, len(body)) + body
        return long(group, element, len(body)) + body

    def references(self, references: Sequence[Reference]) -> Iterator[bytes]:
        """The items of Referenced SOP Sequence."""
        for sop_class, instance in references:
            yield self._class(sop_class) + self.uid(_SOP_INSTANCE, instance)

    def failures(self, failures: Sequence[Failure]) -> Iterator[bytes]:
        """The items of Failed SOP Sequence."""
        for sop_class, instance, reason in failures:
            yield b"".join(
                (
                    self._class(sop_class),
                    self.uid(_SOP_INSTANCE, instance),
                    self._element(_FAILURE_REASON, b"US", self._u16(reason)),
                )
            )

    def _class(self, uid: str) -> bytes:
        known = self._uids.get((_SOP_CLASS, uid))
        if known is None:
            known = self._uids[_SOP_CLASS, uid] = self.uid(_SOP_CLASS, uid)
        return known

    @staticmethod
    def _ascii(text: str) -> bytes:
        try:
            return text.encode("latin-1")  # what a peer named is named back as it came
        except UnicodeError:
            raise InvalidDicom(f"{text!a} cannot be written") from None

    def _element(self, key: int, vr: bytes, value: bytes) -> bytes:
        group, element = key & 0xFFFF, key >> 16
        if self._encoding.explicit:
            if len(value) > 0xFFFF:
                raise InvalidDicom(f"a value of {len(value)} bytes cannot be written")
            return self._short(group, element, vr, len(value)) + value
        return self._long(group, element, len(value)) + value
