"""Status codes of C-ECHO and C-STORE: what they are called and what kind they are.

Standard: PS3.7 9.1.1.1.9 (C-STORE), 9.1.5.1.4 (C-ECHO), Annex C; PS3.4 B.2.3.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

__all__ = ["C_ECHO", "C_STORE", "GENERAL", "Category", "Entry", "Status", "category", "describe"]


class Category(StrEnum):
    """What a status means for the operation.

    Standard: PS3.7 C.1 to C.5.
    """

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


class Status(IntEnum):
    """The codes that we answer with, or look for, by name.

    Standard: PS3.7 Annex C; PS3.4 Table B.2-1.
    """

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    CANNOT_CALCULATE_MATCHES = 0xA701
    CANNOT_PERFORM_SUBOPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    COERCION_OF_DATA_ELEMENTS = 0xB000
    SUBOPERATIONS_COMPLETE_WITH_FAILURES = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING = 0xB007
    CANNOT_UNDERSTAND = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01


class Entry(NamedTuple):
    """A code, or a range of codes, and its meaning."""

    first: int
    last: int
    category: Category
    meaning: str

    def covers(self, status: int) -> bool:
        """Whether the status is this code or in this range."""
        return self.first <= status <= self.last


def _one(status: int, category: Category, meaning: str) -> Entry:
    return Entry(status, status, category, meaning)


_SUCCESS, _WARNING, _FAILURE = Category.SUCCESS, Category.WARNING, Category.FAILURE

C_ECHO: tuple[Entry, ...] = (
    _one(0x0000, _SUCCESS, "success"),
    _one(0x0122, _FAILURE, "refused: SOP class not supported"),
    _one(0x0210, _FAILURE, "duplicate invocation"),
    _one(0x0211, _FAILURE, "unrecognised operation"),
    _one(0x0212, _FAILURE, "mistyped argument"),
)
"""What a C-ECHO response may carry. Standard: PS3.7 9.1.5.1.4."""

C_STORE: tuple[Entry, ...] = (
    _one(0x0000, _SUCCESS, "success"),
    _one(0x0117, _FAILURE, "invalid SOP instance"),
    _one(0x0122, _FAILURE, "refused: SOP class not supported"),
    _one(0x0124, _FAILURE, "refused: not authorised"),
    _one(0x0210, _FAILURE, "duplicate invocation"),
    _one(0x0211, _FAILURE, "unrecognised operation"),
    _one(0x0212, _FAILURE, "mistyped argument"),
    Entry(0xA700, 0xA7FF, _FAILURE, "refused: out of resources"),
    Entry(0xA900, 0xA9FF, _FAILURE, "data set does not match SOP class"),
    _one(0xB000, _WARNING, "stored, data elements coerced"),
    _one(0xB006, _WARNING, "stored, data elements discarded"),
    _one(0xB007, _WARNING, "stored, data set does not wholly match SOP class"),
    Entry(0xC000, 0xCFFF, _FAILURE, "cannot understand"),
)
"""What a C-STORE response may carry. Standard: PS3.7 9.1.1.1.9; PS3.4 Table B.2-1."""

GENERAL: tuple[Entry, ...] = (
    _one(0x0001, _WARNING, "requested optional attributes are not supported"),
    _one(0x0105, _FAILURE, "no such attribute"),
    _one(0x0106, _FAILURE, "invalid attribute value"),
    _one(0x0107, _WARNING, "attribute list error"),
    _one(0x0110, _FAILURE, "processing failure"),
    _one(0x0111, _FAILURE, "duplicate SOP instance"),
    _one(0x0112, _FAILURE, "no such SOP instance"),
    _one(0x0113, _FAILURE, "no such event type"),
    _one(0x0114, _FAILURE, "no such argument"),
    _one(0x0115, _FAILURE, "invalid argument value"),
    _one(0x0116, _WARNING, "attribute value out of range"),
    _one(0x0118, _FAILURE, "no such SOP class"),
    _one(0x0119, _FAILURE, "SOP class and instance conflict"),
    _one(0x0120, _FAILURE, "missing attribute"),
    _one(0x0121, _FAILURE, "missing attribute value"),
    _one(0x0123, _FAILURE, "no such action type"),
    _one(0x0213, _FAILURE, "resource limitation"),
    _one(0xA801, _FAILURE, "refused: move destination unknown"),
    _one(0xFE00, Category.CANCEL, "cancelled"),
    _one(0xFF00, Category.PENDING, "pending"),
    _one(0xFF01, Category.PENDING, "pending, optional keys not supported"),
)
"""Codes of any service, beyond those of C-ECHO and C-STORE. Standard: PS3.7 Annex C."""

# Whatever no table lists, by the range that PS3.7 Annex C gives to each category.
_RANGES: tuple[Entry, ...] = (
    Entry(0x0100, 0x02FF, _FAILURE, "general failure, code not in the standard"),
    Entry(0xA000, 0xAFFF, _FAILURE, "failure of the service, code not in the standard"),
    Entry(0xB000, 0xBFFF, _WARNING, "warning of the service, code not in the standard"),
    Entry(0xC000, 0xCFFF, _FAILURE, "failure of the service, code not in the standard"),
)

# A code outside every range says nothing; only 0000H may be read as success.
_ANYTHING = Entry(0x0000, 0xFFFF, _FAILURE, "unknown status")


def _find(status: int) -> Entry:
    for table in (C_STORE, GENERAL, _RANGES):
        for entry in table:
            if entry.covers(status):
                return entry
    return _ANYTHING


def category(status: int) -> Category:
    """The category of a status; a code that the standard does not know is a failure.

    Standard: PS3.7 Annex C.
    """
    return _find(status).category


def describe(status: int) -> str:
    """A status for people: `A700H failure: refused: out of resources`.

    Standard: PS3.7 Annex C; PS3.4 B.2.3.
    """
    entry = _find(status)
    if entry.meaning == entry.category:
        return f"{status:04X}H {entry.meaning}"
    return f"{status:04X}H {entry.category}: {entry.meaning}"
