"""Status codes as pynetdicom's programs use them.

The tables are those of ``hilum.services.status``; ranges are written out, code by code.

Standard: PS3.7 Annex C; PS3.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from pydicom.dataset import Dataset

from hilum.services import status as tables
from hilum.services.status import Category, Entry
from hilum.sync._globals import STATUS_UNKNOWN

__all__ = ["GENERAL_STATUS", "STORAGE_SERVICE_CLASS_STATUS", "Status"]
__all__ += ["VERIFICATION_SERVICE_CLASS_STATUS", "code_to_category", "code_to_status"]

StatusDictType = dict[int, tuple[str, str]]


def _table(*entries: Iterable[Entry]) -> StatusDictType:
    return {
        code: (str(entry.category).capitalize(), entry.meaning)
        for table in entries
        for entry in table
        for code in range(entry.first, entry.last + 1)
    }


GENERAL_STATUS = _table(tables.GENERAL, tables.C_ECHO)
VERIFICATION_SERVICE_CLASS_STATUS = GENERAL_STATUS
STORAGE_SERVICE_CLASS_STATUS = _table(tables.GENERAL, tables.C_ECHO, tables.C_STORE)


def code_to_status(code: int) -> Dataset:
    """A data set with nothing but Status (0000,0900).

    Raises:
        ValueError: not a status.
    """
    if not isinstance(code, int) or code < 0:
        raise ValueError("'code' must be a positive integer.")
    status = Dataset()
    status.Status = code
    return status


def code_to_category(code: int) -> str:
    """``Success``, ``Pending``, ``Warning``, ``Failure``, ``Cancel``, or ``Unknown``.

    Raises:
        ValueError: not a status.
    """
    if not isinstance(code, int) or code < 0:
        raise ValueError("'code' must be a positive integer.")
    if tables.category(code) is Category.FAILURE and not _is_listed(code):
        return STATUS_UNKNOWN
    return str(tables.category(code)).capitalize()


def _is_listed(code: int) -> bool:
    """Whether PS3.7 Annex C gives the code, or its whole range, to failures."""
    return code in STORAGE_SERVICE_CLASS_STATUS or code >> 12 in (0xA, 0xC)


class Status(IntEnum):
    """Codes by name; programs may add their own."""

    SUCCESS = 0x0000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    MOVE_DESTINATION_UNKNOWN = 0xA801

    @classmethod
    def add(cls, name: str, code: int) -> None:
        """A further name: ``Status.add("UNABLE_TO_PROCESS", 0xC000)``."""
        setattr(cls, name, code)
