from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary

from hilum.services.service_classes import (
    META_SOP_CLASSES,
    SERVICES,
    SOP_CLASSES,
    UPS_EVENT,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    abstract_syntaxes,
    sop_class,
)
from hilum.services.sop_classes import (
    COMPOSITE_INSTANCE_ROOT_GET,
    MODALITY_WORKLIST_FIND,
    NON_PATIENT_STORAGE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from hilum.services.status import describe
from hilum.wire.command import CommandField

GRAYSCALE_META, COLOR_META = "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.1.18"
FILM_SESSION, FILM_BOX, PRINTER = (f"1.2.840.10008.5.1.1.{number}" for number in (1, 2, 16))
GRAYSCALE_BOX, COLOR_BOX = "1.2.840.10008.5.1.1.4", "1.2.840.10008.5.1.1.4.1"


@pytest.mark.parametrize(
    ("uid", "operation", "code", "text"),
    [
        (VERIFICATION, "C_ECHO_RQ", 0x0122, "0122H failure: refused: SOP class not supported"),
        ("1.2.840.10008.5.1.4.1.1.2", "C_STORE_RQ", 0xA7FF, "A7FFH failure: refused: out of resources"),
        (STUDY_ROOT_FIND, None, 0xA900, "A900H failure: identifier does not match SOP class"),
        (STUDY_ROOT_MOVE, None, 0xA801, "A801H failure: refused: move destination unknown"),
        (STUDY_ROOT_MOVE, None, 0xFF00, "FF00H pending: sub-operations are continuing"),
        (COMPOSITE_INSTANCE_ROOT_GET, None, 0xAA04, "AA04H failure: invalid request"),
        (MODALITY_WORKLIST_FIND, None, 0xC001, "C001H failure: unable to process"),
        # One code, two meanings.
        (UPS_PULL, "N_ACTION_RQ", 0xC310, "C310H failure: the UPS is not yet IN PROGRESS"),
        (UPS_PULL, "N_SET_RQ", 0xC310, "C310H failure: the UPS is not IN PROGRESS"),
        ("1.2.840.10008.3.1.2.3.3", "N_CREATE_RQ", 0x0110, "0110H failure: processing failure"),
        ("1.2.840.10008.3.1.2.3.3", "N_SET_RQ", 0x0110,
         "0110H failure: performed procedure step object may no longer be updated"),
        # An operation that the class has not: any meaning that it has.
        (UPS_PUSH, "N_SET_RQ", 0xB300, "B300H warning: the UPS was created with modifications"),
    ],
)  # fmt: skip
def test_describe(uid: str, operation: str | None, code: int, text: str) -> None:
    field = None if operation is None else CommandField[operation]
    assert describe(code, sop_class(uid), field) == text


def test_names_and_keywords_are_those_of_the_dictionary() -> None:
    for uid, found in SOP_CLASSES.items():
        assert found.uid == uid
        name, kind, _, retired, keyword = UID_dictionary.get(uid, (uid, "SOP Class", "", "", ""))
        assert found.name == (name or uid)
        assert found.keyword == keyword
        assert kind == "SOP Class"
        assert found.retired == (retired == "Retired")


def test_every_storage_class_stores() -> None:
    for uids, service in (
        (STORAGE_SOP_CLASSES, "Storage"),
        (NON_PATIENT_STORAGE_SOP_CLASSES, "Non-Patient Object Storage"),
    ):
        found = next(one for one in SERVICES if one.name == service)
        assert {one.uid for one in found.sop_classes} == uids
        assert all(set(SOP_CLASSES[uid].operations) == {CommandField.C_STORE_RQ} for uid in uids)


def test_every_class_names_its_service() -> None:
    for service in SERVICES:
        assert service.sop_classes
        assert all(found.service == service.name for found in service.sop_classes)


def test_repository_query_is_a_class_of_query_retrieve() -> None:
    """PS3.4 C.6.4; what it queries are studies, whoever made an inventory of them (KK)."""
    found = next(one for one in SOP_CLASSES.values() if one.keyword == "RepositoryQuery")
    assert found.service == "Query/Retrieve"
    creation = next(one for one in SOP_CLASSES.values() if one.keyword == "InventoryCreation")
    assert {CommandField(field).name for field in creation.operations} == {
        "N_ACTION_RQ",
        "N_EVENT_REPORT_RQ",
    }


def test_private_and_other_classes_are_none() -> None:
    for uid in ("1.2.3", GRAYSCALE_META, "1.2.840.10008.1.3.10", ""):
        assert sop_class(uid) is None


def test_meta_classes() -> None:
    assert set(META_SOP_CLASSES[GRAYSCALE_META]) == {
        FILM_SESSION, FILM_BOX, PRINTER, GRAYSCALE_BOX
    }  # fmt: skip
    assert set(META_SOP_CLASSES[COLOR_META]) == {FILM_SESSION, FILM_BOX, PRINTER, COLOR_BOX}
    create = CommandField.N_CREATE_RQ
    assert abstract_syntaxes(FILM_SESSION, create) == (FILM_SESSION, GRAYSCALE_META, COLOR_META)
    assert abstract_syntaxes(COLOR_BOX, CommandField.N_SET_RQ) == (COLOR_BOX, COLOR_META)
    assert abstract_syntaxes("1.2.3", create) == ("1.2.3",)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("N_CREATE_RQ", (UPS_PUSH,)),
        ("N_SET_RQ", (UPS_PULL,)),
        ("N_GET_RQ", (UPS_PUSH, UPS_PULL, UPS_WATCH)),
        ("N_ACTION_RQ", (UPS_PUSH, UPS_PULL, UPS_WATCH)),
        ("N_EVENT_REPORT_RQ", (UPS_EVENT,)),
        ("C_FIND_RQ", (UPS_PULL, UPS_WATCH, UPS_QUERY)),
        ("N_DELETE_RQ", ()),
    ],
)
def test_a_ups_is_an_instance_of_push_in_any_of_its_contexts(
    operation: str, expected: tuple[str, ...]
) -> None:
    assert abstract_syntaxes(UPS_PUSH, CommandField[operation]) == expected
