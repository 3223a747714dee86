"""Status codes: what they are called and what kind they are.

The codes of any service are here, and those of C-ECHO and C-STORE; what the services of PS3.4 add
to them is in `hilum.services.service_classes`.

Standard: PS3.7 9.1.1.1.9 (C-STORE), 9.1.5.1.4 (C-ECHO), Annex C; PS3.4 B.2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

__all__ = [
    "C_ECHO",
    "C_STORE",
    "GENERAL",
    "Category",
    "Entry",
    "HasStatuses",
    "Status",
    "category",
    "describe",
]


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
    OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
    NO_SUCH_ATTRIBUTE = 0x0105
    INVALID_ATTRIBUTE_VALUE = 0x0106
    ATTRIBUTE_LIST_ERROR = 0x0107
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    NO_SUCH_ARGUMENT = 0x0114
    INVALID_ARGUMENT_VALUE = 0x0115
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION_TYPE = 0x0123
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
    _one(0x0000, _SUCCESS, "success"),
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
    _one(0x0117, _FAILURE, "invalid SOP instance"),
    _one(0x0118, _FAILURE, "no such SOP class"),
    _one(0x0119, _FAILURE, "SOP class and instance conflict"),
    _one(0x0120, _FAILURE, "missing attribute"),
    _one(0x0121, _FAILURE, "missing attribute value"),
    _one(0x0122, _FAILURE, "refused: SOP class not supported"),
    _one(0x0123, _FAILURE, "no such action type"),
    _one(0x0124, _FAILURE, "refused: not authorised"),
    _one(0x0210, _FAILURE, "duplicate invocation"),
    _one(0x0211, _FAILURE, "unrecognised operation"),
    _one(0x0212, _FAILURE, "mistyped argument"),
    _one(0x0213, _FAILURE, "resource limitation"),
    _one(0xFE00, Category.CANCEL, "cancelled"),
    _one(0xFF00, Category.PENDING, "pending"),
    _one(0xFF01, Category.PENDING, "pending, optional keys not supported"),
)
"""Codes of any service. Standard: PS3.7 Annex C."""

# Whatever no table lists, by the range that PS3.7 Annex C gives to each category.
_RANGES: tuple[Entry, ...] = (
    Entry(0x0100, 0x02FF, _FAILURE, "general failure, code not in the standard"),
    Entry(0xA000, 0xAFFF, _FAILURE, "failure of the service, code not in the standard"),
    Entry(0xB000, 0xBFFF, _WARNING, "warning of the service, code not in the standard"),
    Entry(0xC000, 0xCFFF, _FAILURE, "failure of the service, code not in the standard"),
)

# A code outside every range says nothing; only 0000H may be read as success.
_ANYTHING = Entry(0x0000, 0xFFFF, _FAILURE, "unknown status")


class HasStatuses(Protocol):
    """What knows the status codes of its own; a `hilum.services.service_classes.SopClass`."""

    def statuses(self, operation: int | None = None) -> Sequence[Entry]:
        """The codes of an operation, by the command field of its request; of all without."""


def _find(status: int, specific: Sequence[Entry]) -> Entry:
    for table in (specific, GENERAL, _RANGES):
        for entry in table:
            if entry.covers(status):
                return entry
    return _ANYTHING


def category(status: int) -> Category:
    """The category of a status; a code that the standard does not know is a failure.

    It does not depend on the service: every code of theirs lies in the range of its category.

    Standard: PS3.7 Annex C.
    """
    return _find(status, ()).category


def describe(status: int, service: HasStatuses | None = None, operation: int | None = None) -> str:
    """A status for people: `A700H failure: refused: out of resources`.

    Args:
        status: the code.
        service: whose meaning of the code is asked for; None for that of C-STORE.
        operation: the command field of the request that was answered, where one code means
            different things for different operations.

    Standard: PS3.7 Annex C; PS3.4.
    """
    entry = _find(status, C_STORE if service is None else service.statuses(operation))
    if entry.meaning == entry.category:
        return f"{status:04X}H {entry.meaning}"
    return f"{status:04X}H {entry.category}: {entry.meaning}"
