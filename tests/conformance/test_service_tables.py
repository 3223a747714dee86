"""SOP classes, their operations and status codes against a second transcription and pynetdicom."""

from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class as theirs
from pynetdicom import status as their_status
from tests.conformance.service_tables import LINES, NON_PATIENT, STORED

from hilum.services.service_classes import (
    META_SOP_CLASSES,
    SERVICES,
    SOP_CLASSES,
    SopClass,
    sop_class,
)
from hilum.services.sop_classes import NON_PATIENT_STORAGE_SOP_CLASSES, STORAGE_SOP_CLASSES
from hilum.services.status import GENERAL, Category, Entry, category, describe
from hilum.wire.command import CommandField

BY_KEYWORD = {found.keyword: found for found in SOP_CLASSES.values()}
GENERAL_CODES = {entry.first for entry in GENERAL} - {0x0001, 0xFE00, 0xFF00, 0xFF01}
ROWS = [line.split() for line in LINES.strip().splitlines()]


def codes(entries: tuple[Entry, ...]) -> set[str]:
    """Codes as the transcription writes them, without those of every service."""
    found = set()
    for entry in entries:
        span = {0: "", 0xFF: "xx", 0xFFF: "xxx"}[entry.last - entry.first]
        found.add(f"{entry.first:04X}"[: 4 - len(span)] + span)
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_what_an_operation_may_answer(row: list[str]) -> None:
    keyword, operation, *expected = row
    field = CommandField[f"{operation.replace('-', '_')}_RQ"]
    found = BY_KEYWORD[keyword].operations[field]
    own = tuple(
        entry
        for entry in found
        if entry.first not in GENERAL_CODES or f"{entry.first:04X}" in expected
    )
    assert codes(own) == set(expected)


def test_the_transcription_is_whole() -> None:
    transcribed = {(keyword, operation) for keyword, operation, *_ in ROWS}
    ours = {
        (found.keyword, field.name.removesuffix("_RQ").replace("_", "-"))
        for found in SOP_CLASSES.values()
        for field in found.operations
        if field != CommandField.C_STORE_RQ
    }
    assert transcribed == ours
    assert len(transcribed) == len(ROWS)


def test_what_storage_may_answer() -> None:
    for uids, expected in (
        (STORAGE_SOP_CLASSES, STORED),
        (NON_PATIENT_STORAGE_SOP_CLASSES, NON_PATIENT),
    ):
        for uid in uids:
            (entries,) = SOP_CLASSES[uid].operations.values()
            own = [entry for entry in entries if entry.first not in GENERAL_CODES | {0}]
            assert codes(tuple(own)) == set(expected.split()), uid


def test_categories_lie_in_their_ranges() -> None:
    """PS3.7 Annex C: the first digits say what kind a code is."""
    for found in SOP_CLASSES.values():
        for entry in found.statuses():
            assert entry.category is category(entry.first) is category(entry.last)
            if 0xB000 <= entry.first <= 0xBFFF:
                assert entry.category is Category.WARNING
            if entry.first >> 12 in (0xA, 0xC):
                assert entry.category is Category.FAILURE


# pynetdicom's tables by the class lists that use them.
PYNETDICOM = {
    "VERIFICATION": (theirs._VERIFICATION_CLASSES, their_status.VERIFICATION_SERVICE_CLASS_STATUS),
    "STORAGE": (theirs._STORAGE_CLASSES, their_status.STORAGE_SERVICE_CLASS_STATUS),
    "WORKLIST": (
        theirs._BASIC_WORKLIST_CLASSES,
        their_status.MODALITY_WORKLIST_SERVICE_CLASS_STATUS,
    ),
    "RELEVANT": (
        theirs._RELEVANT_PATIENT_QUERY_CLASSES,
        their_status.RELEVANT_PATIENT_SERVICE_CLASS_STATUS,
    ),
    "SUBSTANCE": (
        theirs._SUBSTANCE_ADMINISTRATION_CLASSES,
        their_status.SUBSTANCE_ADMINISTRATION_SERVICE_CLASS_STATUS,
    ),
    "NON_PATIENT": (
        theirs._NON_PATIENT_OBJECT_CLASSES,
        their_status.NON_PATIENT_SERVICE_CLASS_STATUS,
    ),
    "STEP": (theirs._PROCEDURE_STEP_CLASSES, their_status.PROCEDURE_STEP_STATUS),
    "PRINT": (
        theirs._PRINT_MANAGEMENT_CLASSES,
        their_status.PRINT_JOB_MANAGEMENT_SERVICE_CLASS_STATUS,
    ),
    "COMMITMENT": (
        theirs._STORAGE_COMMITMENT_CLASSES,
        their_status.STORAGE_COMMITMENT_SERVICE_CLASS_STATUS,
    ),
    "EVENT": (
        theirs._APPLICATION_EVENT_CLASSES,
        their_status.APPLICATION_EVENT_LOGGING_SERVICE_CLASS_STATUS,
    ),
    "MEDIA": (
        theirs._MEDIA_CREATION_CLASSES,
        their_status.MEDIA_CREATION_MANAGEMENT_SERVICE_CLASS_STATUS,
    ),
    "UPS": (
        theirs._UNIFIED_PROCEDURE_STEP_CLASSES,
        their_status.UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS,
    ),
    "RT": (
        theirs._RT_MACHINE_VERIFICATION_CLASSES,
        their_status.RT_MACHINE_VERIFICATION_SERVICE_CLASS_STATUS,
    ),
}


def classes_of(listed: dict[str, str]) -> list[SopClass]:
    found = [sop_class(str(uid)) for uid in listed.values()]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("name", PYNETDICOM)
def test_every_code_that_pynetdicom_knows_has_its_meaning_here(name: str) -> None:
    listed, table = PYNETDICOM[name]
    classes = classes_of(listed)
    for code, (kind, _) in table.items():
        assert category(code).value == kind.lower(), f"{code:04X}"
        said = [describe(code, one) for one in classes]
        assert any("not in the standard" not in text for text in said), f"{code:04X}"


def test_every_class_of_pynetdicom_is_here() -> None:
    known = {
        str(uid)
        for name, listed in vars(theirs).items()
        if name.endswith("_CLASSES") and name != "_SERVICE_CLASSES" and isinstance(listed, dict)
        for uid in listed.values()
    }
    names = {UID_dictionary[uid][0] for uid in known - set(SOP_CLASSES) - set(META_SOP_CLASSES)}
    assert names == {"Media Storage Directory Storage"}  # exists on media only


def test_annexes_ascend_but_for_query_retrieve() -> None:
    annexes = [service.annex for service in SERVICES if service.annex not in ("Y", "Z")]
    assert annexes == sorted(annexes, key=lambda annex: (len(annex), annex))
    assert len(set(annexes)) == len(annexes)
