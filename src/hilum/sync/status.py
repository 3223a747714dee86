"""Status codes as pynetdicom's programs use them.

The tables are those of ``hilum.services.status``; ranges are written out, code by code.

Standard: PS3.7 Annex C; PS3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from pydicom.dataset import Dataset

from hilum.services import service_statuses as services
from hilum.services import status as tables
from hilum.services.status import Category, Entry
from hilum.sync._globals import STATUS_UNKNOWN

__all__ = [
    "APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS",
    "GENERAL_STATUS",
    "MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS",
    "MODALITY_WORKLIST_SERVICE_CLASS_STATUS",
    "NON_PATIENT_SERVICE_CLASS_STATUS",
    "PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS",
    "PROCEDURE_STEP_STATUS",
    "QR_FIND_SERVICE_CLASS_STATUS",
    "QR_GET_SERVICE_CLASS_STATUS",
    "QR_MOVE_SERVICE_CLASS_STATUS",
    "RELEVANT_PATIENT_SERVICE_CLASS_STATUS",
    "RT_MACHINE_VERIFICATION_SERVICE_CLASS_STATUS",
    "STORAGE_COMMITMENT_SERVICE_CLASS_STATUS",
    "STORAGE_MANAGEMENT_SERVICE_CLASS_STATUS",
    "STORAGE_SERVICE_CLASS_STATUS",
    "SUBSTANCE_ADMINISTRATION_SERVICE_CLASS_STATUS",
    "Status",
    "UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS",
    "VERIFICATION_SERVICE_CLASS_STATUS",
    "code_to_category",
    "code_to_status",
]

StatusDictType = dict[int, tuple[str, str]]


def _table(*entries: Iterable[Entry]) -> StatusDictType:
    return {
        code: (str(entry.category).capitalize(), entry.meaning)
        for table in entries
        for entry in table
        for code in range(entry.first, entry.last + 1)
    }


# Later tables have the last word on a code; what belongs to no service comes first.
_GENERAL = (tables.GENERAL, tables.C_ECHO)
_PENDING = tuple(entry for entry in tables.GENERAL if entry.category is Category.PENDING)
GENERAL_STATUS = {
    code: entry for code, entry in _table(*_GENERAL).items() if entry[0] not in ("Pending",)
}
VERIFICATION_SERVICE_CLASS_STATUS = GENERAL_STATUS
STORAGE_SERVICE_CLASS_STATUS = GENERAL_STATUS | _table(tables.C_STORE)
STORAGE_COMMITMENT_SERVICE_CLASS_STATUS = GENERAL_STATUS


def _service(*entries: Sequence[Entry]) -> StatusDictType:
    return GENERAL_STATUS | _table(*entries)


QR_FIND_SERVICE_CLASS_STATUS = _service(services.REPOSITORY_FIND, services.FIND, _PENDING)
QR_GET_SERVICE_CLASS_STATUS = _service(services.FRAME_GET, _PENDING)
QR_MOVE_SERVICE_CLASS_STATUS = _service(services.FRAME_MOVE, _PENDING)
MODALITY_WORKLIST_SERVICE_CLASS_STATUS = _service(services.FIND, _PENDING)
SUBSTANCE_ADMINISTRATION_SERVICE_CLASS_STATUS = _service(services.FIND, _PENDING)
RELEVANT_PATIENT_SERVICE_CLASS_STATUS = _service(services.RELEVANT_PATIENT_FIND, _PENDING)
NON_PATIENT_SERVICE_CLASS_STATUS = _service(services.NON_PATIENT_STORE)
PROCEDURE_STEP_STATUS = _service(services.OPTIONAL, services.MPPS_SET)
PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS = _service(
    services.FILM_SESSION_CREATE,
    services.FILM_SESSION_PRINT,
    services.FILM_BOX_CREATE,
    services.FILM_BOX_PRINT,
    services.GRAYSCALE_IMAGE_BOX_SET,
    services.DENSITY,
)
APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS = _service(
    services.PROCEDURAL_EVENT, services.SUBSTANCE_EVENT
)
MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS = _service(
    services.OPTIONAL, services.MEDIA_CREATION_ACTION
)
UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS = _service(
    services.UPS_CREATE,
    services.UPS_STATE,
    services.UPS_CANCEL,
    services.UPS_WATCH,
    services.UPS_SET,
    services.UPS_GET,
    services.FIND,
    _PENDING,
)
RT_MACHINE_VERIFICATION_SERVICE_CLASS_STATUS = _service(
    services.MACHINE_CREATE, services.MACHINE_SET, services.MACHINE_INSTANCE
)
STORAGE_MANAGEMENT_SERVICE_CLASS_STATUS = _service(services.INVENTORY_ACTION)


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
